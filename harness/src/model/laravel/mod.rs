//! The Laravel at the other end, as pure logic.
//!
//! It validates, answers and stores as the running application does, and it
//! keeps a [`Journal`] of what took effect. It has no clock and no sockets: the live server and the
//! simulation both walk each request through the same three steps and supply the time between.
//!
//! ```text
//! arrive ──(wait for a worker)──▶ begin ──(busy for call.busy_ms)──▶ finish ──▶ reply
//! ```
//!
//! The steps are apart because the interesting failures lie between them: a request that has begun
//! goes on to its end though its client has left, and takes effect only then.
//!
//! It does not model: sessions and cookies, form bodies, a database that fails half-way.

mod answers;
mod endpoint;
mod fault;
mod input;
mod journal;
mod proxy;
mod reads;
mod results;
mod rows;
mod tenants;
mod throttle;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use self::{
    endpoint::{Batches, Endpoint},
    throttle::Throttle,
};
use super::http::{Kind, Request, Response, Route};

pub use self::{
    answers::digest,
    endpoint::kind,
    fault::{Fault, Faults, Matches, Misbehaviour},
    journal::{Arrived, Count, Counts, Entry, Journal},
    proxy::{
        ENVOY_LOST, ENVOY_OVERLOADED, ENVOY_PROTOCOL, ENVOY_REFUSED, ENVOY_REFUSED_STREAM,
        ENVOY_RETRIED, ENVOY_TIMEOUT, Proxy,
    },
    reads::{Beside, Reads},
    rows::{Required, Throwing},
    tenants::Tenants,
    throttle::RetryAfter,
};

/// nginx's `client_max_body_size` unless somebody raised it: beyond it, 413.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What a plain Laravel needs for one of these requests on small hardware: framework boot and two
/// queries.
const REQUEST_MS: u64 = 20;

/// One more row in an already open connection.
const ITEM_MS: u64 = 1;

/// A run of the gateway begins in the middle of everybody's QR cycle, so an account that has been told
/// nothing yet was told `pending` before.
const INITIAL_STATE: &str = "pending";

/// How this Laravel is set up.
#[derive(Clone, Debug)]
pub struct LaravelConfig {
    /// What comes before `/qr` and the others, without a slash at its end.
    pub prefix: String,
    /// Whether `POST …/qr/batch` exists.
    pub qr_batch: bool,
    /// Whether `POST …/whatsapp/status/batch` exists.
    pub status_batch: bool,
    /// `throttle:api`: so many requests a minute for one address (60 by default up to Laravel 10,
    /// none since). Every caller here comes from the same address.
    pub throttle_per_minute: Option<u32>,
    /// A body beyond this is answered 413.
    pub body_bytes_max: usize,
    /// What every request costs a worker.
    pub request_ms: u64,
    /// What every item of a batch costs on top.
    pub item_ms: u64,
    /// Whether a session that was never added is an account all the same.
    pub any_account: bool,
    /// The state of an account nobody has sent an update for.
    pub initial_state: String,
    /// How it answers reads.
    pub reads: Reads,
    /// Whether a QR leaves the state alone.
    pub qr_leaves_state: bool,
    /// Sessions that are no accounts to a read until then, in ms of Laravel's clock.
    pub unborn: BTreeMap<String, u64>,
    /// Whose session is whose; empty: no token is asked for.
    pub tenants: Tenants,
    /// Whether whatever no route takes is answered 200 with a page, as a catch-all route does for a
    /// single-page application.
    pub catch_all: bool,
    /// How a throttled answer says when to come back.
    pub retry_after: RetryAfter,
    /// Whether a batch is judged and answered item by item, with `results`.
    pub results: bool,
    /// Sessions whose updates the validation does not take, although nothing about them looks wrong, and from
    /// when on, in ms of Laravel's clock.
    pub poison: BTreeMap<String, u64>,
    /// Whether a failed validation says which items it is about.
    pub poison_indexes: bool,
    /// Sessions whose rows throw: a 500 for whatever they are part of, or, with `results`, a line of theirs.
    pub throwing: Throwing,
    /// What such a line says.
    pub throwing_line: u16,
    /// Headers that every request must have.
    pub requires: Vec<Required>,
    /// The header that tells tenants apart: one session's name is an account of each of them. An account's
    /// key is then `tenant/session`, in the journal as well.
    pub tenant_header: Option<String>,
    /// `max:10`: a batch of more is a 422 that names the array.
    pub batch_items_max: Option<usize>,
    /// Whether an unknown session is a 404, instead of `skipped`.
    pub unknown_is_404: bool,
    /// Whether the single routes take a PUT as well: `Route::match(['post', 'put'])`.
    pub puts: bool,
    /// Whether a batch is answered 204, without a word.
    pub silent_batches: bool,
    /// Whether a message of a session that is not active is refused.
    pub messages_need_active: bool,
    /// Unix time at the zero of Laravel's clock, ms: for whatever names a moment.
    pub unix_zero_ms: u64,
}

/// What Laravel knows of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The state; a QR sets it to `pending`.
    pub estado_qr: String,
    /// The QR stored last.
    pub last_qr: Option<String>,
    /// What reads show, from when on, where that comes later than the answer to the update: in the order of time.
    seen: Vec<Seen>,
}

/// What a read shows of an account from a moment on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    from_ms: u64,
    estado_qr: String,
    last_qr: Option<String>,
}

/// Laravel.
#[derive(Clone, Debug)]
pub struct Laravel {
    config: LaravelConfig,
    accounts: BTreeMap<String, Account>,
    journal: Journal,
    faults: Faults,
    throttle: Throttle,
    calls: u64,
}

/// A request a worker is busy with.
#[derive(Clone, Debug)]
#[must_use = "a call that has begun takes effect when it finishes"]
pub struct Call {
    /// Its number, as in [`Entry::call`].
    pub id: u64,
    /// What it counts as.
    pub kind: Kind,
    /// How long a worker is busy with it.
    pub busy_ms: u64,
    started_ms: u64,
    request: Request,
    arrived: Arc<Arrived>,
    fault: Option<Misbehaviour>,
}

/// What leaves Laravel, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The answer, whole.
    Whole(Response),
    /// The connection breaks after so many bytes of the body; 0 is before the status line.
    Cut(Response, usize),
    /// No answer, and no end of the connection either.
    Never,
}

// === impl Laravel ===

impl Laravel {
    /// A Laravel without accounts and without faults.
    pub fn new(config: LaravelConfig) -> Self {
        Self {
            config,
            accounts: BTreeMap::new(),
            journal: Journal::default(),
            faults: Faults::default(),
            throttle: Throttle::default(),
            calls: 0,
        }
    }

    /// Creates an account in the initial state and without a QR; an existing one stays as it is.
    pub fn add_account(&mut self, session: &str) {
        self.account_mut(session);
    }

    /// Deletes an account: from now on `account_not_found`.
    pub fn remove_account(&mut self, session: &str) {
        self.accounts.remove(session);
    }

    /// Whether updates of this session are not taken at that time.
    pub fn is_poison(&self, session: &str, now_ms: u64) -> bool {
        let from_ms = self.config.poison.get(session);
        from_ms.is_some_and(|from_ms| *from_ms <= now_ms)
    }

    /// Whose session is whose, from now on.
    pub fn tenants_mut(&mut self) -> &mut Tenants {
        &mut self.config.tenants
    }

    /// Whether the row of this session throws at that time.
    pub fn throws(&self, session: &str, now_ms: u64) -> bool {
        let span = self.config.throwing.get(session);
        span.is_some_and(|span| span.contains(&now_ms))
    }

    /// The rows that throw, from now on.
    pub fn throwing_mut(&mut self) -> &mut Throwing {
        &mut self.config.throwing
    }

    /// Refuses every update of this session from then on, in ms of Laravel's clock.
    pub fn refuse_session(&mut self, session: &str, from_ms: u64) {
        self.config.poison.insert(session.to_owned(), from_ms);
    }

    /// What is stored of a session.
    pub fn account(&self, session: &str) -> Option<&Account> {
        self.accounts.get(session)
    }

    /// Has `throttle:api` from now on, or none.
    pub fn set_throttle(&mut self, per_minute: Option<u32>) {
        self.config.throttle_per_minute = per_minute;
        self.throttle = Throttle::default();
    }

    /// How reads are answered from now on.
    pub fn set_reads(&mut self, reads: Reads) {
        self.config.reads = reads;
    }

    /// Another route than Embudo's has changed a session's state: a panel's *stop*, a log-out.
    pub fn set_state(&mut self, now_ms: u64, session: &str, state: &str) {
        let seen_after_ms = self.config.reads.seen_after_ms;
        let account = self.account_mut(session);
        account.changes(now_ms, seen_after_ms, |account| {
            state.clone_into(&mut account.estado_qr);
        });
    }

    /// Replaces the faults in force.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// What was processed and counted.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// For [`Journal::reset`].
    pub fn journal_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// What a request counts as.
    pub fn kind(&self, request: &Request) -> Kind {
        endpoint::kind(&self.config.prefix, &request.method, &request.path)
    }

    // ## Arrived => Waiting
    //
    // Counted here and not when a worker takes it: a queue that grows is load as well.

    /// A request has reached nginx.
    pub fn arrive(&mut self, now_ms: u64, request: &Request) {
        let kind = self.kind(request);
        self.journal.arrived(now_ms, kind, request.body.len());
        self.journal.keep(Arrived::of(now_ms, kind, request));
    }

    // ## Arrived => Refused

    /// nginx found no room in PHP's backlog.
    pub fn refuse(&mut self, request: &Request) -> Response {
        let kind = self.kind(request);
        self.journal.answered(kind, 502);
        Response::html(502, "502 Bad Gateway")
    }

    // ## Waiting => Busy
    //
    // The fault is drawn here, because what it changes first is how long the worker is busy.

    /// A worker takes the request.
    pub fn begin(&mut self, now_ms: u64, request: Request) -> Call {
        let kind = self.kind(&request);
        let fault = self.faults.strike(now_ms, kind, &request);
        let items = match kind {
            Kind::PostQrBatch => batch_len(&request, "qrs"),
            Kind::PostStatusBatch => batch_len(&request, "statuses"),
            _ => 0,
        };
        let usual = self.config.request_ms + self.config.item_ms * items;
        let busy_ms = match &fault {
            Some(Misbehaviour::Slow { ms }) => usual + ms,
            Some(Misbehaviour::Hang { finish_after_ms }) => *finish_after_ms,
            Some(
                Misbehaviour::Status {
                    processed: false, ..
                }
                | Misbehaviour::Proxy {
                    processed: false, ..
                }
                | Misbehaviour::Page { .. }
                | Misbehaviour::Throttled { .. },
            ) => self.config.request_ms,
            _ => usual,
        };
        self.calls += 1;
        Call {
            id: self.calls,
            kind,
            busy_ms,
            started_ms: now_ms,
            arrived: Arc::new(Arrived::of(now_ms, kind, &request)),
            request,
            fault,
        }
    }

    // ## Busy => Answered
    //
    // The effect comes with the end, whoever is still there to hear of it.

    /// The worker is done with it.
    pub fn finish(&mut self, now_ms: u64, call: Call) -> Reply {
        let reply = match call.fault.clone() {
            Some(Misbehaviour::Status {
                code,
                headers,
                body,
                processed,
            }) => {
                let items = if processed {
                    self.process(now_ms, &call).items
                } else {
                    0
                };
                Reply::Whole(Response {
                    status: code,
                    headers,
                    body: fault::body(&body),
                    items,
                })
            }
            Some(Misbehaviour::Reset {
                after_bytes,
                processed: false,
            }) => Reply::Cut(Response::html(502, "Bad Gateway"), after_bytes),
            Some(Misbehaviour::Reset {
                after_bytes,
                processed: true,
            }) => Reply::Cut(self.process(now_ms, &call), after_bytes),
            Some(Misbehaviour::Hang { .. }) => {
                self.process(now_ms, &call);
                Reply::Never
            }
            Some(Misbehaviour::Throttled {
                retry_after_s,
                retry_after,
            }) => {
                let unix_ms = now_ms + self.config.unix_zero_ms;
                let when = retry_after.text(retry_after_s * 1000, unix_ms);
                Reply::Whole(throttle::refusal(when, unix_ms))
            }
            Some(Misbehaviour::Proxy { says, processed }) => {
                let items = match processed {
                    true => self.process(now_ms, &call).items,
                    false => 0,
                };
                Reply::Whole(Response {
                    items,
                    ..says.response()
                })
            }
            Some(Misbehaviour::Page { code, location }) => {
                Reply::Whole(fault::page(code, location.as_deref()))
            }
            Some(Misbehaviour::Headers { lines }) => {
                let mut response = self.process(now_ms, &call);
                let line = |at| (format!("x-line-{at}"), "1".to_owned());
                response.headers.extend((0..lines).map(line));
                Reply::Whole(response)
            }
            Some(Misbehaviour::Slow { .. } | Misbehaviour::Partly { .. }) | None => {
                Reply::Whole(self.process(now_ms, &call))
            }
        };
        if let Reply::Whole(response) = &reply {
            self.journal.answered(call.kind, response.status);
        }
        reply
    }

    /// All three steps at one moment, for whoever needs no time and no broken connections.
    pub fn handle(&mut self, now_ms: u64, request: &Request) -> Response {
        self.arrive(now_ms, request);
        let call = self.begin(now_ms, request.clone());
        match self.finish(now_ms, call) {
            Reply::Whole(response) | Reply::Cut(response, _) => response,
            Reply::Never => Response::html(504, "Gateway Time-out"),
        }
    }

    fn process(&mut self, now_ms: u64, call: &Call) -> Response {
        let request = &call.request;
        if request.body.len() > self.config.body_bytes_max {
            return Response::html(413, "413 Request Entity Too Large");
        }
        if let Some(limit) = self.config.throttle_per_minute
            && let Some(refused) = self.throttle.hit(
                limit,
                now_ms,
                self.config.retry_after,
                self.config.unix_zero_ms,
            )
        {
            return refused;
        }
        let lacks = |required: &Required| required.refusal(request);
        if let Some(refused) = self.config.requires.iter().find_map(lacks) {
            return refused;
        }
        if let Err(refused) = self.config.tenants.admit(request) {
            return refused;
        }
        let batches = Batches {
            qr: self.config.qr_batch,
            status: self.config.status_batch,
            puts: self.config.puts,
        };
        let path = request.path.clone();
        match Endpoint::of(&self.config.prefix, batches, &request.method, &path) {
            Endpoint::Qr => self.single(now_ms, Route::Qr, call),
            Endpoint::Status => self.single(now_ms, Route::Status, call),
            Endpoint::QrBatch => self.batch(now_ms, Route::Qr, call),
            Endpoint::StatusBatch => self.batch(now_ms, Route::Status, call),
            Endpoint::ReadStatus(session) | Endpoint::Account(session)
                if !self.permits(request, session) =>
            {
                tenants::forbidden()
            }
            Endpoint::ReadStatus(session) => {
                let key = self.key(request, session);
                let is_unborn = self.config.unborn.get(session) > Some(&now_ms);
                let account = self.known(&key).filter(|_| !is_unborn);
                let shown = account.map(|account| account.shown(now_ms));
                self.config.reads.answer(now_ms, request, session, shown)
            }
            Endpoint::Account(session) => {
                let key = self.key(request, session);
                answers::account(session, self.known(&key).map(|account| &*account))
            }
            Endpoint::ActiveAccounts => {
                let active = self
                    .accounts
                    .iter()
                    .filter(|(_, a)| a.estado_qr == "active");
                let ids: Vec<&String> = active.map(|(session, _)| session).collect();
                Response::json(200, &json!({ "success": true, "accounts": ids }))
            }
            Endpoint::Message(session) => {
                let key = self.key(request, session);
                let account = self.accounts.get(&key);
                let is_up = account.is_none_or(|account| account.estado_qr == "active");
                match is_up || !self.config.messages_need_active {
                    true => answers::webhook(&request.body),
                    false => answers::not_active(),
                }
            }
            Endpoint::Delete(session) | Endpoint::LogOut(session)
                if !self.permits(request, session) =>
            {
                tenants::forbidden()
            }
            Endpoint::Delete(session) => {
                let key = self.key(request, session);
                self.journal.changed_by_another_route(now_ms, &key);
                match self.accounts.remove(&key) {
                    Some(_) => Response::json(200, &json!({ "success": true })),
                    None => rows::not_found(),
                }
            }
            Endpoint::LogOut(session) => {
                let key = self.key(request, session);
                self.journal.changed_by_another_route(now_ms, &key);
                let seen_after_ms = self.config.reads.seen_after_ms;
                match self.known(&key) {
                    Some(account) => {
                        account.changes(now_ms, seen_after_ms, |account| {
                            "inactive".clone_into(&mut account.estado_qr);
                        });
                        Response::json(200, &json!({ "success": true }))
                    }
                    None => rows::not_found(),
                }
            }
            Endpoint::WrongMethod(_) | Endpoint::Unknown if self.config.catch_all => {
                Response::html(200, "Laravel")
            }
            Endpoint::WrongMethod(allow) => answers::wrong_method(request, allow),
            Endpoint::Unknown => answers::not_found(request),
        }
    }

    fn known(&mut self, session: &str) -> Option<&mut Account> {
        if self.config.any_account {
            return Some(self.account_mut(session));
        }
        self.accounts.get_mut(session)
    }

    /// The key of a session's account: its name, and whose it is where a header says so.
    fn key(&self, request: &Request, session: &str) -> String {
        let header = self.config.tenant_header.as_deref();
        match header.and_then(|name| request.header(name)) {
            Some(tenant) => format!("{tenant}/{session}"),
            None => session.to_owned(),
        }
    }

    /// The exception that comes of an update of this account, if one does.
    fn exception(&mut self, now_ms: u64, key: &str) -> Option<Response> {
        if self.throws(key, now_ms) {
            self.journal.threw(now_ms, key);
            return Some(rows::server_error());
        }
        let is_missing = self.config.unknown_is_404 && self.known(key).is_none();
        is_missing.then(rows::not_found)
    }

    /// Whether whoever asks may speak for this session.
    fn permits(&self, request: &Request, session: &str) -> bool {
        let sessions = self.config.tenants.admit(request);
        sessions.is_ok_and(|own| own.is_none_or(|own| own.contains(session)))
    }

    fn account_mut(&mut self, session: &str) -> &mut Account {
        let state = &self.config.initial_state;
        let fresh = || Account {
            estado_qr: state.clone(),
            last_qr: None,
            seen: Vec::new(),
        };
        self.accounts
            .entry(session.to_owned())
            .or_insert_with(fresh)
    }

    fn single(&mut self, now_ms: u64, route: Route, call: &Call) -> Response {
        let item = match input::single(route, &input::read(&call.request)) {
            Ok(item) => item,
            Err(errors) => return errors.response(&call.request),
        };
        if !self.permits(&call.request, &item.session) {
            return tenants::forbidden();
        }
        if self.is_poison(&item.session, now_ms) {
            return input::poison(route, None).response(&call.request);
        }
        let key = self.key(&call.request, &item.session);
        if let Some(exception) = self.exception(now_ms, &key) {
            return exception;
        }
        let body = if self.store(now_ms, route, item, false, call) {
            json!({ "success": true, "message": "Updated" })
        } else {
            json!({ "success": true, "skipped": true, "reason": "account_not_found" })
        };
        Response {
            items: 1,
            ..Response::json(200, &body)
        }
    }

    /// Whether the account exists.
    fn store(
        &mut self,
        now_ms: u64,
        route: Route,
        item: input::Item,
        batched: bool,
        call: &Call,
    ) -> bool {
        let key = self.key(&call.request, &item.session);
        let (seen_after_ms, leaves) =
            (self.config.reads.seen_after_ms, self.config.qr_leaves_state);
        let account = self.known(&key);
        let stored = account.is_some();
        if let Some(account) = account {
            account.changes(now_ms, seen_after_ms, |account| match route {
                // Laravel's own QR code does this, which is why a QR that arrives after `active`
                // destroys it.
                Route::Qr => {
                    account.last_qr = Some(item.value.clone());
                    if !leaves {
                        "pending".clone_into(&mut account.estado_qr);
                    }
                }
                Route::Status => account.estado_qr.clone_from(&item.value),
            });
        }
        self.journal.processed(Entry {
            seq: 0,
            call: call.id,
            session: key,
            route,
            value: item.value,
            timestamp: item.timestamp,
            batched,
            stored,
            credential: call.request.header("authorization").map(str::to_owned),
            arrived: call.arrived.clone(),
            started_ms: call.started_ms,
            finished_ms: now_ms,
        });
        stored
    }
}

// === impl Account ===

impl Account {
    /// Changes it, and lets reads see that so much later.
    fn changes(&mut self, now_ms: u64, seen_after_ms: u64, change: impl FnOnce(&mut Self)) {
        if self.seen.is_empty() {
            self.sees(0);
        }
        change(self);
        self.sees(now_ms + seen_after_ms);
        // Of what is seen already, only the last.
        let past = self.seen.iter().rposition(|seen| seen.from_ms <= now_ms);
        self.seen.drain(..past.unwrap_or(0));
    }

    fn sees(&mut self, from_ms: u64) {
        self.seen.push(Seen {
            from_ms,
            estado_qr: self.estado_qr.clone(),
            last_qr: self.last_qr.clone(),
        });
    }

    /// State and QR as a read of that moment shows them.
    fn shown(&self, now_ms: u64) -> (String, Option<String>) {
        let seen = self.seen.iter().rfind(|seen| seen.from_ms <= now_ms);
        let seen = seen.map(|seen| (&seen.estado_qr, &seen.last_qr));
        let (state, qr) = seen.unwrap_or((&self.estado_qr, &self.last_qr));
        (state.clone(), qr.clone())
    }
}

// === impl LaravelConfig ===

impl Default for LaravelConfig {
    fn default() -> Self {
        Self {
            prefix: "/api".to_owned(),
            qr_batch: true,
            status_batch: true,
            throttle_per_minute: None,
            body_bytes_max: BODY_BYTES_MAX,
            request_ms: REQUEST_MS,
            item_ms: ITEM_MS,
            any_account: false,
            initial_state: INITIAL_STATE.to_owned(),
            reads: Reads::default(),
            qr_leaves_state: false,
            unborn: BTreeMap::new(),
            tenants: Tenants::default(),
            catch_all: false,
            retry_after: RetryAfter::Seconds,
            results: false,
            poison: BTreeMap::new(),
            poison_indexes: true,
            throwing: Throwing::new(),
            throwing_line: 500,
            requires: Vec::new(),
            tenant_header: None,
            batch_items_max: None,
            unknown_is_404: false,
            puts: false,
            silent_batches: false,
            messages_need_active: false,
            unix_zero_ms: 0,
        }
    }
}

/// Items of a batch as PHP sees them, valid or not; only to know how long it takes.
fn batch_len(request: &Request, field: &str) -> u64 {
    input::read(request)
        .get(field)
        .and_then(Value::as_array)
        .map_or(0, |list| list.len() as u64)
}

#[cfg(test)]
mod tests;
