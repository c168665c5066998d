//! A chart as SVG: curves over two axes, with a name at the end of each, and a column to point at for every
//! place that has something to tell.
//!
//! Colours come from the page's style, by class, so that light, dark and print have their own.

use std::fmt::Write as _;

use super::axis::Axis;
use super::escape;

/// Room around the plot: for the labels of both axes; to the right at least so much for the curves' names.
const LEFT: f64 = 62.0;
const RIGHT_MIN: f64 = 76.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;
/// Width of a letter of a name, about, and what is left free around a name.
const LETTER: f64 = 7.4;
const NAME_GAP: f64 = 20.0;
/// The closest that two names may be.
const NAMES_APART: f64 = 15.0;

/// A curve.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Written at its end.
    pub name: String,
    /// Its look: `c0` to `c4` for the colours, `dashed`, `dotted`, `area`.
    pub class: String,
    /// In order of x. A point that lies nowhere makes a gap.
    pub points: Vec<(f64, f64)>,
}

/// A column that tells something when it is pointed at.
#[derive(Clone, Debug)]
pub struct Spot {
    /// From where to where, in units of the x axis.
    pub span: (f64, f64),
    /// What it tells, in lines.
    pub text: String,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What it shows, for those who cannot see it.
    pub about: String,
    /// Width and height in units of its own.
    pub size: (f64, f64),
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// Up to where it is warm-up.
    pub warmup: f64,
    /// The curves, the uppermost last.
    pub curves: Vec<Curve>,
    /// What can be pointed at.
    pub spots: Vec<Spot>,
}

impl Chart {
    /// The chart as SVG.
    pub fn svg(&self) -> String {
        let (width, height) = self.size;
        let mut svg = format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{}\">\n",
            escape(&self.about)
        );
        self.draw_warmup(&mut svg);
        self.draw_axes(&mut svg);
        for curve in &self.curves {
            self.draw_curve(&mut svg, curve);
        }
        self.draw_names(&mut svg);
        self.draw_spots(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    /// Where the plot ends.
    fn right(&self) -> f64 {
        let letters = self.curves.iter().map(|curve| curve.name.chars().count()).max().unwrap_or(0);
        self.size.0 - (letters as f64 * LETTER + NAME_GAP).max(RIGHT_MIN)
    }

    fn x_of(&self, value: f64) -> Option<f64> {
        Some(LEFT + self.x.place(value)? * (self.right() - LEFT))
    }

    fn y_of(&self, value: f64) -> Option<f64> {
        Some(self.size.1 - BOTTOM - self.y.place(value)? * (self.size.1 - TOP - BOTTOM))
    }

    fn draw_warmup(&self, svg: &mut String) {
        let (Some(from), Some(to)) = (self.x_of(0.0), self.x_of(self.warmup)) else { return };
        if self.warmup <= 0.0 {
            return;
        }
        let (span, tall) = (to - from, self.size.1 - TOP - BOTTOM);
        put(
            svg,
            &format!(
                "<rect class=\"warmup\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{span:.1}\" height=\"{tall}\"/>"
            ),
        );
        if span > 60.0 {
            let (x, y) = (from + 6.0, TOP + 14.0);
            put(svg, &format!("<text class=\"faint\" x=\"{x:.1}\" y=\"{y}\">warm-up</text>"));
        }
    }

    fn draw_axes(&self, svg: &mut String) {
        let (right, bottom) = (self.right(), self.size.1 - BOTTOM);
        for tick in &self.y.ticks {
            let Some(y) = self.y_of(tick.at) else { continue };
            put(svg, &format!("<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>"));
            let (x, base, label) = (LEFT - 8.0, y + 4.0, escape(&tick.label));
            put(
                svg,
                &format!("<text class=\"tick\" x=\"{x}\" y=\"{base:.1}\" text-anchor=\"end\">{label}</text>"),
            );
        }
        for tick in &self.x.ticks {
            let Some(x) = self.x_of(tick.at) else { continue };
            put(svg, &format!("<path class=\"axis\" d=\"M{x:.1} {bottom}v5\"/>"));
            let (base, label) = (bottom + 19.0, escape(&tick.label));
            put(
                svg,
                &format!(
                    "<text class=\"tick\" x=\"{x:.1}\" y=\"{base}\" text-anchor=\"middle\">{label}</text>"
                ),
            );
        }
        put(svg, &format!("<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>"));
    }

    fn draw_curve(&self, svg: &mut String, curve: &Curve) {
        let places = self.places(curve);
        let class = escape(&curve.class);
        if curve.class.contains("area") {
            let d = area(&places, self.size.1 - BOTTOM);
            put(svg, &format!("<path class=\"fill {class}\" d=\"{d}\"/>"));
        }
        put(svg, &format!("<path class=\"curve {class}\" d=\"{}\"/>", path(&places)));
    }

    fn places(&self, curve: &Curve) -> Vec<Option<(f64, f64)>> {
        curve.points.iter().map(|(x, y)| Some((self.x_of(*x)?, self.y_of(*y)?))).collect()
    }

    /// The names of the curves at their ends, moved apart where they would touch.
    fn draw_names(&self, svg: &mut String) {
        let end_of = |curve: &Curve| self.places(curve).into_iter().flatten().last();
        let mut names: Vec<(f64, &Curve)> = Vec::new();
        names.extend(self.curves.iter().filter_map(|curve| Some((end_of(curve)?.1, curve))));
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let heights: Vec<f64> = names.iter().map(|(y, _)| *y).collect();
        let x = self.right() + 8.0;
        for (y, (_, curve)) in apart(&heights, TOP + 4.0, self.size.1 - BOTTOM).into_iter().zip(names) {
            let (base, class, name) = (y + 4.0, escape(&curve.class), escape(&curve.name));
            put(svg, &format!("<text class=\"name {class}\" x=\"{x}\" y=\"{base:.1}\">{name}</text>"));
        }
    }

    fn draw_spots(&self, svg: &mut String) {
        let tall = self.size.1 - TOP - BOTTOM;
        for spot in &self.spots {
            let (Some(from), Some(to)) = (self.x_of(spot.span.0), self.x_of(spot.span.1)) else { continue };
            let (wide, text) = ((to - from).max(0.5), escape(&spot.text));
            put(
                svg,
                &format!(
                    "<rect class=\"spot\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{wide:.1}\" height=\"{tall}\">\
                     <title>{text}</title></rect>"
                ),
            );
        }
    }
}

fn put(svg: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(svg, "{line}");
}

/// The path through places; a lonely one is a dot.
pub fn path(places: &[Option<(f64, f64)>]) -> String {
    let mut d = String::new();
    for part in places.split(Option::is_none) {
        for (i, (x, y)) in part.iter().flatten().enumerate() {
            let step = if i == 0 { 'M' } else { 'L' };
            let _ = write!(d, "{step}{x:.1} {y:.1}");
        }
        if part.len() == 1 {
            d.push_str("h0.1");
        }
    }
    d
}

/// What lies between a path and a line below it.
fn area(places: &[Option<(f64, f64)>], bottom: f64) -> String {
    let mut d = String::new();
    for part in places.split(Option::is_none) {
        if let (Some(Some((first, _))), Some(Some((last, _)))) = (part.first(), part.last()) {
            let _ = write!(d, "{}L{last:.1} {bottom}L{first:.1} {bottom}Z", path(part));
        }
    }
    d
}

/// Rising heights, moved so that no two are closer than a line of text and all lie within bounds.
fn apart(heights: &[f64], top: f64, bottom: f64) -> Vec<f64> {
    let mut moved = heights.to_vec();
    for i in 0..moved.len() {
        let least = if i == 0 { top } else { moved[i - 1] + NAMES_APART };
        moved[i] = moved[i].max(least);
    }
    for i in (0..moved.len()).rev() {
        let most = if i + 1 == moved.len() { bottom } else { moved[i + 1] - NAMES_APART };
        moved[i] = moved[i].min(most);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        Chart {
            about: "a <b>".into(),
            size: (LEFT + RIGHT_MIN + 100.0, TOP + BOTTOM + 100.0),
            x: Axis::seconds(10.0),
            y: Axis::linear(100.0, units::rate),
            warmup: 0.0,
            curves: vec![Curve { name: "p<50".into(), class: "c0 area".into(), points }],
            spots: vec![Spot { span: (0.0, 1.0), text: "a & b".into() }],
        }
    }

    #[test]
    fn the_path_of_a_series() {
        let svg = chart(vec![(0.0, 0.0), (5.0, 50.0), (6.0, f64::NAN), (10.0, 100.0)]).svg();
        assert!(
            svg.contains("<path class=\"curve c0 area\" d=\"M62.0 112.0L112.0 62.0M162.0 12.0h0.1\"/>"),
            "{svg}"
        );
        assert!(svg.contains("d=\"M62.0 112.0L112.0 62.0L112.0 112L62.0 112Z"), "{svg}");
        assert!(svg.contains("<text class=\"name c0 area\" x=\"170\" y=\"20.0\">p&lt;50</text>"), "{svg}");
        assert!(
            svg.contains("aria-label=\"a &lt;b&gt;\"") && svg.contains("<title>a &amp; b</title>"),
            "{svg}"
        );
    }

    #[test]
    fn names_do_not_touch() {
        assert_eq!(apart(&[10.0, 12.0, 50.0], 0.0, 100.0), [10.0, 25.0, 50.0]);
        assert_eq!(apart(&[98.0, 99.0], 0.0, 100.0), [85.0, 100.0]);
        assert_eq!(apart(&[], 0.0, 1.0), Vec::<f64>::new());
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!((path(&[]), path(&[None, None])), (String::new(), String::new()));
        assert!(chart(Vec::new()).svg().contains("class=\"curve c0 area\" d=\"\""));
    }
}
