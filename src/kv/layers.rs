//! The keys of a shard through all layers: memtable over frozen memtable over what was resolved of the table.
//!
//! Invariants:
//! - Of a key, the topmost layer that knows it decides, be it that the key was deleted.
//! - The keys of a walk are strictly ascending, or descending where it is taken from its end, and each comes
//!   once, with its tombstone where that decides: whoever walks bounds what it passes.

use super::memtable::Held;

/// A key and what decides of it; `None`: it was deleted.
pub(super) type Decided<'a> = (&'a [u8], Option<Held<'a>>);

/// The keys of several layers in order, each by its topmost layer. It can be walked from either end.
pub(super) struct Walk<'a> {
    /// The topmost first.
    layers: Vec<Layer<'a>>,
}

/// One layer, with the next key at either end where it was looked at already.
struct Layer<'a> {
    rest: Box<dyn DoubleEndedIterator<Item = Decided<'a>> + 'a>,
    front: Option<Decided<'a>>,
    back: Option<Decided<'a>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new() -> Self {
        Self { layers: Vec::new() }
    }

    /// Adds a layer below the others. Its keys are strictly ascending.
    pub(super) fn over(&mut self, layer: impl DoubleEndedIterator<Item = Decided<'a>> + 'a) {
        self.layers.push(Layer { rest: Box::new(layer), front: None, back: None });
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Decided<'a>;

    fn next(&mut self) -> Option<Decided<'a>> {
        if let [layer] = &mut self.layers[..] {
            return layer.front.take().or_else(|| layer.rest.next()).or_else(|| layer.back.take());
        }
        let key = self.layers.iter_mut().filter_map(Layer::front).min()?;
        let at_key = self.layers.iter_mut().filter(|layer| layer.front.is_some_and(|(head, _)| head == key));
        // Every layer that knows the key lets it go; the topmost is the first.
        at_key.fold(None, |decided, layer| {
            let head = layer.front.take();
            decided.or(head)
        })
    }
}

impl DoubleEndedIterator for Walk<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let key = self.layers.iter_mut().filter_map(Layer::back).max()?;
        let at_key = self.layers.iter_mut().filter(|layer| layer.back.is_some_and(|(head, _)| head == key));
        at_key.fold(None, |decided, layer| {
            let head = layer.back.take();
            decided.or(head)
        })
    }
}

impl<'a> Layer<'a> {
    /// The lowest key that is left.
    fn front(&mut self) -> Option<&'a [u8]> {
        if self.front.is_none() {
            self.front = self.rest.next().or_else(|| self.back.take());
        }
        self.front.map(|(key, _)| key)
    }

    /// The highest key that is left.
    fn back(&mut self) -> Option<&'a [u8]> {
        if self.back.is_none() {
            self.back = self.rest.next_back().or_else(|| self.front.take());
        }
        self.back.map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Revision;

    fn held(value: &Bytes, layer: u64) -> Held<'_> {
        Held {
            value: Some(value),
            value_bytes: value.len(),
            create_revision: Revision(1),
            mod_revision: Revision(1),
            version: layer,
            digest: 0,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Taken from either end in any order, the same keys come as from one end, by the topmost layer.
        #[test]
        fn ends_meet(
            layers in prop::collection::vec(prop::collection::btree_map(0..12_u8, any::<bool>(), 0..9), 0..4),
            from_front in prop::collection::vec(any::<bool>(), 20),
        ) {
            let value = Bytes::new();
            let mut walk = Walk::new();
            let mut expected = std::collections::BTreeMap::new();
            for (at, layer) in (0_u64..).zip(&layers) {
                let keys = layer.iter().map(|(key, live)| (vec![*key], *live));
                let keys: Vec<(Vec<u8>, bool)> = keys.collect();
                for (key, live) in &keys {
                    expected.entry(key.clone()).or_insert(live.then_some(at));
                }
                let keys: &[(Vec<u8>, bool)] = keys.leak();
                let value = &value;
                walk.over(keys.iter().map(move |(key, live)| (&key[..], live.then(|| held(value, at)))));
            }
            for is_front in from_front {
                let found = if is_front { walk.next() } else { walk.next_back() };
                let wanted = if is_front { expected.pop_first() } else { expected.pop_last() };
                let found = found.map(|(key, held)| (key.to_vec(), held.map(|held| held.version)));
                prop_assert_eq!(found, wanted);
            }
        }
    }
}
