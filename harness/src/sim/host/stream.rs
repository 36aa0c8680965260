//! The callbacks of a stream, one after the other, with what Envoy does between them.
//!
//! # What was read in Envoy's source
//! * Headers that have gone on from their own callback (`Continue`) are out of the guest's reach, and so are those of
//!   a request that a root has resumed; those that were held (`Pause`) and went on with their body stay in reach to
//!   the end. Data that has gone on is out of reach, and what comes later is put behind what is held.
//! * What a root answers to a stream that it has made effective is sent once its own callback is over.
//!   (source/extensions/common/wasm/context.cc, `addAfterVmCallAction`)
//! * A local reply to a request goes through the filter's own response callbacks. One that takes the place of
//!   an answer on its way goes straight to the codec: the filter has seen that answer already.
//!   (source/common/http/filter_manager.cc, `sendLocalReply`) Other versions may do otherwise, so every other
//!   stream runs the callbacks once more.

use bytes::Bytes;

use super::guest::StreamState;
use super::vm::size;
use super::{Act, Acted, Body, LocalReply, Passed, Relayed, StreamEnd, StreamFate, Vm, Waits};
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
        guest.add_stream(context, root, headers);
        guest.select_stream(context);
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
            let stream = self.stream(context);
            gone = stream.request_headers.take();
            // The router has them.
            stream.fate = StreamFate::under_way();
        }
        let last = body.pieces.len().saturating_sub(1);
        for (at, piece) in body.pieces.into_iter().enumerate() {
            if self.store.data().reply.is_some() {
                break;
            }
            let stream = self.stream(context);
            // What was held back is still there; what went on is not.
            stream.request_body = match action {
                PAUSE => [&stream.request_body[..], &piece[..]].concat().into(),
                _ => piece,
            };
            let length = size(stream.request_body.len());
            let ends = u32::from(at == last && !body.trailers && !body.cut);
            let on_body = &self.exports.on_request_body;
            action = on_body
                .call_async(&mut self.store, (context, length, ends))
                .await?;
            if action != PAUSE {
                let stream = self.stream(context);
                out.extend_from_slice(&std::mem::take(&mut stream.request_body));
                stream.fate = StreamFate::under_way();
            }
        }
        if body.trailers && self.store.data().reply.is_none() {
            let on_trailers = &self.exports.on_request_trailers;
            action = on_trailers
                .call_async(&mut self.store, (context, 1))
                .await?;
            if action != PAUSE {
                let stream = self.stream(context);
                out.extend_from_slice(&std::mem::take(&mut stream.request_body));
            }
        }
        if let Some(reply) = self.store.data_mut().reply.take() {
            let reply = self.local(context, reply).await?;
            self.ends(context).await?;
            return Ok(reply.map_or(StreamEnd::Held, StreamEnd::Answered));
        }
        if body.cut {
            self.stream(context).fate = StreamFate::hung_up(false);
            self.ends(context).await?;
            return Ok(StreamEnd::Gone);
        }
        let stream = self.stream(context);
        if action == PAUSE {
            stream.waits = true;
            stream.gone_on = (gone, out.into());
            return Ok(StreamEnd::Waits(Waits { context, root }));
        }
        // What went on from the body on stays in reach.
        let headers = gone.or_else(|| stream.request_headers.clone());
        stream.fate = StreamFate::under_way();
        Ok(StreamEnd::Passed(Passed {
            context,
            root,
            headers: headers.unwrap_or_default(),
            body: out.into(),
        }))
    }

    fn stream(&mut self, context: u32) -> &mut StreamState {
        self.store.data_mut().stream_mut(context)
    }

    /// Laravel's answer to a request that passed.
    pub(super) async fn relay(
        &mut self,
        context: u32,
        headers: Headers,
        body: Body,
        fate: StreamFate,
    ) -> wasmtime::Result<StreamEnd> {
        self.store.data_mut().reply = None;
        let cut = body.cut;
        self.stream(context).fate = fate;
        let end = match self.encode(context, headers, body).await? {
            Encoded::Whole(headers, body) => Some((headers, body, false, false)),
            Encoded::Broken(headers, body) => {
                let headers = headers.unwrap_or_default();
                Some((headers, body, false, true))
            }
            Encoded::Replaced(mut reply) => {
                let stream = self.stream(context);
                stream.fate = std::mem::take(&mut stream.fate).own();
                stream.fate.code = Some(reply.status);
                stream.replaced = true;
                stream.logged.1.clone_from(&reply.headers);
                stream.logged.1.push(status(reply.status));
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
        if cut {
            let stream = self.stream(context);
            let code = stream.fate.code;
            stream.fate = StreamFate {
                code,
                ..StreamFate::broken_off()
            };
        }
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

    /// What a root's callback did to streams that were held, carried out in its order.
    pub(super) async fn acted(&mut self) -> wasmtime::Result<Vec<(u32, Acted)>> {
        let acts = std::mem::take(&mut self.store.data_mut().acts);
        let mut acted = Vec::new();
        for (context, act) in acts {
            let done = match act {
                Act::Reply(reply) => {
                    let reply = self.local(context, reply).await?;
                    self.ends(context).await?;
                    Acted::Answered(reply)
                }
                Act::Resume(mut passed) => {
                    let stream = self.stream(context);
                    stream.fate = StreamFate::under_way();
                    let (_, gone_on) = std::mem::take(&mut stream.gone_on);
                    let body = std::mem::take(&mut stream.request_body);
                    passed.body = match gone_on.is_empty() {
                        true => body,
                        false => [&gone_on[..], &body[..]].concat().into(),
                    };
                    Acted::Resumed(*passed)
                }
            };
            acted.push((context, done));
        }
        Ok(acted)
    }

    /// The caller of a request that passed, or is held, is gone.
    pub(super) async fn hangs_up(
        &mut self,
        context: u32,
        fate: StreamFate,
    ) -> wasmtime::Result<()> {
        // Its answer was quicker.
        if !self.store.data().has_stream(context) {
            return Ok(());
        }
        self.stream(context).fate = fate;
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
        let stream = self.stream(context);
        stream.fate = std::mem::take(&mut stream.fate).own();
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
        self.store.data_mut().select_stream(context);
        let stream = self.stream(context);
        stream.waits = false;
        stream.fate.code = code_of(&headers);
        stream.logged.1.clone_from(&headers);
        stream.response_headers = Some(headers);
        stream.response_body = Bytes::new();
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
            gone = self.stream(context).response_headers.take();
        }
        let last = body.pieces.len().saturating_sub(1);
        for (at, piece) in body.pieces.into_iter().enumerate() {
            let whole: Bytes = [&held[..], &piece[..]].concat().into();
            let length = size(whole.len());
            self.stream(context).response_body = whole;
            let ends = u32::from(at == last && !body.trailers && !body.cut);
            let on_body = &self.exports.on_response_body;
            action = on_body
                .call_async(&mut self.store, (context, length, ends))
                .await?;
            held = std::mem::take(&mut self.stream(context).response_body);
            if gone.is_none()
                && let Some(reply) = self.store.data_mut().reply.take()
            {
                return Ok(Encoded::Replaced(reply));
            }
            if action != PAUSE {
                out.extend_from_slice(&std::mem::take(&mut held));
                gone = gone.or_else(|| self.stream(context).response_headers.clone());
            }
        }
        if body.trailers {
            self.stream(context).response_body = held;
            let on_trailers = &self.exports.on_response_trailers;
            action = on_trailers
                .call_async(&mut self.store, (context, 1))
                .await?;
            held = std::mem::take(&mut self.stream(context).response_body);
            if action != PAUSE {
                out.extend_from_slice(&held);
                gone = gone.or_else(|| self.stream(context).response_headers.clone());
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
        self.store.data_mut().select_stream(context);
        let stream = self.stream(context);
        stream.response_body = Bytes::new();
        stream.logs = true;
        let on_log = &self.exports.on_log;
        on_log.call_async(&mut self.store, context).await?;
        self.stream(context).logs = false;
        let (exports, store) = (&self.exports, &mut self.store);
        exports.on_done.call_async(&mut *store, context).await?;
        exports.on_delete.call_async(&mut *store, context).await?;
        store.data_mut().remove_stream(context);
        Ok(())
    }
}

fn code_of(headers: &Headers) -> Option<u16> {
    let (_, value) = headers.iter().find(|(name, _)| name == ":status")?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn status(code: u16) -> (String, Vec<u8>) {
    (":status".to_owned(), code.to_string().into_bytes())
}
