//! A stream that the peer asks for, as the exit sees it.

use std::sync::Arc;

use super::failure;
use super::shared::Shared;
use crate::net::{BoxStream, DialError, HostPort};
use crate::tunnel::Offer;
use crate::tunnel::session::StreamId;
use crate::tunnel::stream::TunnelStream;

/// See [`Offer`].
pub(super) struct Offered {
    shared: Arc<Shared>,
    id: StreamId,
    target: HostPort,
    answered: bool,
}

impl Offered {
    pub(super) const fn new(shared: Arc<Shared>, id: StreamId, target: HostPort) -> Self {
        Self { shared, id, target, answered: false }
    }

    fn answer(&mut self, why: &DialError) {
        if !std::mem::replace(&mut self.answered, true) {
            let failure = failure::to_wire(why);
            self.shared.with(|state, now| state.session.refuse(now, self.id, failure));
        }
    }
}

impl Offer for Offered {
    fn target(&self) -> &HostPort {
        &self.target
    }

    fn accept(mut self: Box<Self>) -> BoxStream {
        self.answered = true;
        // Where the stream was cut meanwhile, its first use says so.
        self.shared.with(|state, _| state.session.accept(self.id));
        Box::new(TunnelStream::new(Arc::clone(&self.shared), self.id))
    }

    fn refuse(mut self: Box<Self>, why: &DialError) {
        self.answer(why);
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        let why = DialError::Unreachable {
            target: self.target.clone(),
            detail: "the exit ended before it dialled".to_owned(),
        };
        self.answer(&why);
    }
}
