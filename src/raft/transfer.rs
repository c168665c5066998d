//! Handing leadership over (dissertation §3.10).
//!
//! ```text
//! transfer(to) ─► proposals refused ─► `to` has every entry ─► TimeoutNow ─► `to` campaigns past stickiness
//!                      └── T later, or `to` would not lead: given up, proposals taken again
//! ```
//!
//! Invariants:
//! - One at a time; nobody is told to campaign that lacks an entry.
//! - TimeoutNow is sent again with every heartbeat; a follower that already campaigned is in a newer term and
//!   ignores it.
//!
//! Deliberately absent: the decision when and to whom. That is the driver's.

use crate::ids::NodeId;

use super::message::{Body, Voice};
use super::planted::planted;
use super::ready::TransferError;
use super::{Raft, RoleState};

/// A transfer under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Transfer {
    /// Who is to lead.
    pub(super) to: NodeId,
    /// Ticks since it was asked for.
    pub(super) elapsed: u32,
    /// Whether it was told to campaign.
    pub(super) is_told: bool,
}

impl Raft {
    /// See [`Raft::transfer`].
    pub(super) fn begin_transfer(&mut self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        let leader = self.leader();
        let RoleState::Leader(own) = &self.role else { return Err(TransferError::NotLeader { leader }) };
        if to == Some(self.config.id) {
            return Ok(self.config.id);
        }
        if let Some(Transfer { to, .. }) = own.transfer {
            return Err(TransferError::Transferring { to });
        }
        let to = self.transfer_target(to).ok_or(TransferError::NoTarget)?;
        if let RoleState::Leader(own) = &mut self.role {
            own.transfer = Some(Transfer { to, elapsed: 0, is_told: false });
        }
        self.push_transfer();
        Ok(to)
    }

    /// The node named, or else the one with the longest log, if it was heard within T and would lead. One
    /// whose disk is short comes after all others.
    fn transfer_target(&self, to: Option<NodeId>) -> Option<NodeId> {
        let peers = self.peers();
        let may_lead =
            |peer: &&super::Peer| peer.is_active && peer.willing.may_lead() && peer.voice == Voice::Whole;
        let is_wanted = |peer: &&super::Peer| to.is_none_or(|to| to == peer.id);
        let best = peers
            .iter()
            .filter(may_lead)
            .filter(is_wanted)
            .max_by_key(|peer| (peer.willing.has_room(), peer.matched));
        best.map(|peer| peer.id)
    }

    /// Tells the target to campaign, once it has every entry. Gives up where it says that it would not.
    pub(super) fn push_transfer(&mut self) {
        let last = self.log.last_index();
        let RoleState::Leader(own) = &mut self.role else { return };
        let Some(transfer) = &mut own.transfer else { return };
        let Some(progress) = own.peers.get(&transfer.to) else { return };
        if !progress.willing.may_lead() || progress.voice != Voice::Whole {
            own.transfer = None;
            return;
        }
        let is_caught_up = progress.matched() == last || planted!(self.config, TransferWithoutCatchUp);
        if is_caught_up && !transfer.is_told {
            transfer.is_told = true;
            own.is_lease_void = true;
            let to = transfer.to;
            self.send(to, Body::TimeoutNow);
        }
    }

    /// One tick of a transfer: after T it is given up.
    pub(super) fn tick_transfer(&mut self) {
        let RoleState::Leader(own) = &mut self.role else { return };
        let Some(transfer) = &mut own.transfer else { return };
        transfer.elapsed += 1;
        if transfer.elapsed >= self.config.election_ticks {
            own.transfer = None;
        }
    }

    /// Lets TimeoutNow be said again: it may have been lost.
    pub(super) fn repeat_transfer(&mut self) {
        let RoleState::Leader(own) = &mut self.role else { return };
        if let Some(transfer) = &mut own.transfer {
            transfer.is_told = false;
        }
        self.push_transfer();
    }
}
