//! The callbacks of a stream, one after the other, with what Envoy does between them.
//!
//! # What was read in Envoy's source
//! * Headers and data that have gone on (`Continue`) are out of the guest's reach; what is held (`Pause`)
//!   stays in reach, and data that comes later is put behind it. (source/extensions/common/wasm/context.cc)
//! * What a root answers to a stream that it has made effective is sent once its own callback is over.
//!   (source/extensions/common/wasm/context.cc, `addAfterVmCallAction`)
//! * A local reply to a request goes through the filter's own response callbacks. One that takes the place of
//!   an answer on its way goes straight to the codec: the filter has seen that answer already.
//!   (source/common/http/filter_manager.cc, `sendLocalReply`) Other versions may do otherwise, so every other
//!   stream runs the callbacks once more.

use bytes::Bytes;

use super::vm::size;
use super::{Body, LocalReply, Passed, Relayed, StreamEnd, Vm, Waits};
use crate::sim::abi::Headers;

const PAUSE: u32 = 1;

/// What the response callbacks made of an answer.
enum Encoded {
    Whole(Headers, Bytes),
    Replaced(LocalReply),
    Broken(Option<Headers>, Bytes),
    Held,
}

// === impl Vm ===

impl Vm {
    /// A new stream, from its first header to its answer, or to the moment when it goes on to Laravel.
    pub(super) async fn request(
        &mut self,
        headers: Headers,
        body: Body,
    ) -> wasmtime::Result<StreamEnd> {
        let context = self.next_context;
        self.next_context += 1;
        let root = self.root;
        let count = size(headers.len());
        let guest = self.store.data_mut();
        guest.add_stream(context, root);
        guest.select_stream(context);
        guest.request_headers = Some(headers);
        guest.request_body = Bytes::new();
        guest.response_headers = None;
        guest.reply = None;
        let create = &self.exports.on_context_create;
        create.call_async(&mut self.store, (context, root)).await?;
        let ends = body.pieces.is_empty() && !body.trailers && !body.cut;
        let on_headers = &self.exports.on_request_headers;
        let mut action = on_headers
            .call_async(&mut self.store, (context, count, u32::from(ends)))
            .await?;
        let (mut gone, mut out) = (None, Vec::new());
        if action != PAUSE {
            gone = self.store.data_mut().request_headers.take();
        }
        let last = body.pieces.len().saturating_sub(1);
        for (at, piece) in body.pieces.into_iter().enumerate() {
            if self.store.data().reply.is_some() {
                break;
            }
            let guest = self.store.data_mut();
            // What was held back is still there; what went on is not.
            guest.request_body = match action {
                PAUSE => [&guest.request_body[..], &piece[..]].concat().into(),
                _ => piece,
            };
            let length = size(guest.request_body.len());
            let ends = u32::from(at == last && !body.trailers && !body.cut);
            let on_body = &self.exports.on_request_body;
            action = on_body
                .call_async(&mut self.store, (context, length, ends))
                .await?;
            if action != PAUSE {
                let body = std::mem::take(&mut self.store.data_mut().request_body);
                out.extend_from_slice(&body);
            }
        }
        if body.trailers && self.store.data().reply.is_none() {
            let on_trailers = &self.exports.on_request_trailers;
            action = on_trailers
                .call_async(&mut self.store, (context, 1))
                .await?;
            if action != PAUSE {
                let body = std::mem::take(&mut self.store.data_mut().request_body);
                out.extend_from_slice(&body);
            }
        }
        if let Some(reply) = self.store.data_mut().reply.take() {
            let reply = self.local(context, reply).await?;
            self.ends(context).await?;
            return Ok(reply.map_or(StreamEnd::Held, StreamEnd::Answered));
        }
        if body.cut {
            self.ends(context).await?;
            return Ok(StreamEnd::Gone);
        }
        if action == PAUSE {
            let held = self.store.data_mut().request_headers.take();
            self.passed.insert(context, held);
            return Ok(StreamEnd::Waits(Waits { context, root }));
        }
        let held = self.store.data_mut().request_headers.take();
        let headers = gone.or_else(|| held.clone()).unwrap_or_default();
        self.passed.insert(context, held);
        Ok(StreamEnd::Passed(Passed {
            context,
            headers,
            body: out.into(),
        }))
    }

    /// Laravel's answer to a request that passed.
    pub(super) async fn relay(
        &mut self,
        context: u32,
        headers: Headers,
        body: Body,
    ) -> wasmtime::Result<StreamEnd> {
        let guest = self.store.data_mut();
        guest.reply = None;
        guest.request_headers = self.passed.remove(&context).flatten();
        let end = match self.encode(context, headers, body).await? {
            Encoded::Whole(headers, body) => Some((headers, body, false, false)),
            Encoded::Broken(headers, body) => {
                let headers = headers.unwrap_or_default();
                Some((headers, body, false, true))
            }
            Encoded::Replaced(mut reply) => {
                let again = context.is_multiple_of(2);
                match again {
                    true => self.local(context, reply).await?,
                    false => {
                        reply.headers.insert(0, status(reply.status));
                        Some(reply)
                    }
                }
                .map(|reply| (reply.headers, reply.body, true, false))
            }
            Encoded::Held => None,
        };
        self.ends(context).await?;
        let Some((headers, body, replaced, cut)) = end else {
            return Ok(StreamEnd::Held);
        };
        Ok(StreamEnd::Relayed(Relayed {
            headers,
            body,
            replaced,
            cut,
        }))
    }

    /// The answers that a root's callback gave to streams that were held.
    pub(super) async fn answers(&mut self) -> wasmtime::Result<Vec<(u32, Option<LocalReply>)>> {
        let replies = std::mem::take(&mut self.store.data_mut().replies);
        let mut answers = Vec::new();
        for (context, reply) in replies {
            self.store.data_mut().request_headers = self.passed.remove(&context).flatten();
            let reply = self.local(context, reply).await?;
            self.ends(context).await?;
            answers.push((context, reply));
        }
        Ok(answers)
    }

    /// The caller of a request that passed, or is held, is gone.
    pub(super) async fn hangs_up(&mut self, context: u32) -> wasmtime::Result<()> {
        // Its answer was quicker.
        if !self.store.data().has_stream(context) {
            return Ok(());
        }
        self.store.data_mut().request_headers = self.passed.remove(&context).flatten();
        self.ends(context).await
    }

    /// The guest's own answer, through its own response callbacks; none where they hold it.
    async fn local(
        &mut self,
        context: u32,
        reply: LocalReply,
    ) -> wasmtime::Result<Option<LocalReply>> {
        let LocalReply {
            status: code,
            mut headers,
            body,
        } = reply;
        headers.insert(0, status(code));
        let pieces = if body.is_empty() { vec![] } else { vec![body] };
        let body = Body {
            pieces,
            ..Body::default()
        };
        match self.encode(context, headers, body).await? {
            Encoded::Whole(headers, body) => Ok(Some(LocalReply {
                status: code,
                headers,
                body,
            })),
            // An answer to one's own answer has no end.
            Encoded::Replaced(_) => Err(wasmtime::format_err!("a local reply was answered again")),
            Encoded::Broken(..) | Encoded::Held => Ok(None),
        }
    }

    /// An answer goes through the response callbacks.
    async fn encode(
        &mut self,
        context: u32,
        headers: Headers,
        body: Body,
    ) -> wasmtime::Result<Encoded> {
        let count = size(headers.len());
        let guest = self.store.data_mut();
        guest.select_stream(context);
        guest.response_headers = Some(headers);
        guest.response_body = None;
        let ends = body.pieces.is_empty() && !body.trailers && !body.cut;
        let on_headers = &self.exports.on_response_headers;
        let mut action = on_headers
            .call_async(&mut self.store, (context, count, u32::from(ends)))
            .await?;
        let (mut gone, mut out, mut held) = (None, Vec::new(), Bytes::new());
        if let Some(reply) = self.store.data_mut().reply.take() {
            return Ok(Encoded::Replaced(reply));
        }
        if action != PAUSE {
            gone = self.store.data_mut().response_headers.take();
        }
        let last = body.pieces.len().saturating_sub(1);
        for (at, piece) in body.pieces.into_iter().enumerate() {
            let whole: Bytes = [&held[..], &piece[..]].concat().into();
            let length = size(whole.len());
            self.store.data_mut().response_body = Some(whole);
            let ends = u32::from(at == last && !body.trailers && !body.cut);
            let on_body = &self.exports.on_response_body;
            action = on_body
                .call_async(&mut self.store, (context, length, ends))
                .await?;
            held = self
                .store
                .data_mut()
                .response_body
                .take()
                .unwrap_or_default();
            if gone.is_none()
                && let Some(reply) = self.store.data_mut().reply.take()
            {
                return Ok(Encoded::Replaced(reply));
            }
            if action != PAUSE {
                out.extend_from_slice(&std::mem::take(&mut held));
                gone = gone.or_else(|| self.store.data_mut().response_headers.take());
            }
        }
        if body.trailers {
            self.store.data_mut().response_body = Some(held);
            let on_trailers = &self.exports.on_response_trailers;
            action = on_trailers
                .call_async(&mut self.store, (context, 1))
                .await?;
            held = self
                .store
                .data_mut()
                .response_body
                .take()
                .unwrap_or_default();
            if action != PAUSE {
                out.extend_from_slice(&held);
                gone = gone.or_else(|| self.store.data_mut().response_headers.take());
            }
        }
        if body.cut {
            return Ok(Encoded::Broken(gone, out.into()));
        }
        match gone {
            Some(headers) if action != PAUSE => Ok(Encoded::Whole(headers, out.into())),
            _ => Ok(Encoded::Held),
        }
    }

    /// The last callbacks of a stream.
    async fn ends(&mut self, context: u32) -> wasmtime::Result<()> {
        let guest = self.store.data_mut();
        guest.select_stream(context);
        guest.response_body = None;
        let (exports, store) = (&self.exports, &mut self.store);
        exports.on_done.call_async(&mut *store, context).await?;
        exports.on_log.call_async(&mut *store, context).await?;
        exports.on_delete.call_async(&mut *store, context).await?;
        store.data_mut().remove_stream(context);
        Ok(())
    }
}

fn status(code: u16) -> (String, Vec<u8>) {
    (":status".to_owned(), code.to_string().into_bytes())
}
