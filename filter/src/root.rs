//! A root context: one for each thread and configuration, every one of them a dispatcher in waiting.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use embudo_core::ack::Answer as AckAnswer;
use embudo_core::circuit;
use embudo_core::config::Config;
use embudo_core::hash::HashKey;
use embudo_core::hold::{Go, Turn};
use embudo_core::intake::Reply;
use embudo_core::layout::Layout;
use embudo_core::lease::Candidate;
use embudo_core::map::Map;
use embudo_core::proof::{Ended, Standing};
use embudo_core::route::Rules;
use embudo_core::sabotage::{self, Sabotage};
use embudo_core::shard::Ask;
use embudo_core::store::{self, CAS_ATTEMPTS_MAX, Keys};
use embudo_core::time::Now;
use embudo_core::verdict::Answer;
use embudo_core::write_through::Fate;
use embudo_dispatch::{Counter, Dispatcher, Effect, Event, Level, NotSent};
use log::{error, info, warn};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{ContextType, MapType, Status};

use crate::Plugin;
use crate::doorbell::Doorbell;
use crate::host::{self, WallOffset};
use crate::stats::Stats;
use crate::store::SharedData;
use crate::stream::{self, Stream};

/// The first tick comes soon, so that a fresh Envoy has a dispatcher before its first request.
const FIRST_TICK_MS: u64 = 50;

/// Rings answered in one wake-up. There is one wake-up for each ring, so none is left over.
const RINGS_PER_WAKE_UP: usize = 64;

/// As much of an answer as is read, bytes. Laravel's are a few hundred; one of more than this is no
/// answer of a batch route.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A root context.
pub(crate) struct Root {
    /// The host's name for it in this VM.
    id: u32,
    work: Option<Work>,
}

/// What a configured root works with.
struct Work {
    plugin: Rc<Plugin>,
    dispatcher: Dispatcher,
    /// From the host's token to the dispatcher's name of a call.
    calls: Map<u32, u64>,
    /// The operator asked for another number of shards than the process has; said once, by the
    /// dispatcher.
    shards_wanted: Option<u32>,
    /// The host waits for [`Effect::Finished`].
    leaving: bool,
    /// The dispatcher's own period, and when its next tick is due while the root polls for waiters.
    tick_ms: u64,
    next_tick_ms: u64,
}

// === impl Root ===

impl Root {
    pub(crate) fn new(id: u32) -> Self {
        Self { id, work: None }
    }

    fn configure(&mut self) -> Result<Work, Vec<String>> {
        let json = hostcalls::get_buffer(
            proxy_wasm::types::BufferType::PluginConfiguration,
            0,
            usize::MAX,
        );
        let json = json.ok().flatten().unwrap_or_default();
        let mut config = Config::parse(&json)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;

        let [name, vm_id] =
            ["plugin_name", "plugin_vm_id"].map(|p| property(p).unwrap_or_default());
        let keys = Keys::new(&name);
        let wanted = config.shards;
        let layout = Layout {
            shards: wanted,
            key: HashKey::from_bytes(host::random()),
        };
        let layout = Layout::open(&mut SharedData, &keys, layout)
            .map_err(|error| vec![error.to_string()])?;
        config.shards = layout.shards;

        let lease_ms = config.times.lease_ms;
        let stats = Stats::define(&config, &store::label(&name, &vm_id)).into();
        let rules = Rc::new(Rules {
            config,
            key: layout.key,
        });
        let doorbell = Doorbell::new(vm_id, keys.doorbell());
        let [id, seed] = [
            u64::from_le_bytes(host::random()),
            u64::from_le_bytes(host::random()),
        ];
        // Two configurations are told apart by their bytes.
        let fingerprint = rules.key.hash(&[&json]) as u64;
        let cluster = embudo_dispatch::cluster_mark(&rules, &rules.config.upstream.cluster);
        let candidate = Candidate::new(id, fingerprint, host::mono_ms(), lease_ms).calling(cluster);
        Ok(Work {
            dispatcher: Dispatcher::new(Rc::clone(&rules), keys.clone(), candidate, seed),
            plugin: Rc::new(Plugin {
                rules,
                keys,
                heads: RefCell::default(),
                bodies: RefCell::default(),
                doorbell,
                stats,
                number: Cell::new(u64::from_le_bytes(host::random())),
                proofs: RefCell::default(),
                circuit: Cell::default(),
                awaited: RefCell::default(),
                wall: Cell::new(WallOffset::look()),
                waiters: RefCell::default(),
                holding: RefCell::default(),
                barriers: RefCell::default(),
                proving: RefCell::default(),
                vm: u64::from_le_bytes(host::random()),
                quiet_until_ms: Cell::default(),
                polls: Cell::new(false),
            }),
            calls: Map::new(),
            shards_wanted: (wanted != layout.shards).then_some(wanted),
            leaving: false,
            tick_ms: FIRST_TICK_MS,
            next_tick_ms: 0,
        })
    }
}

thread_local! {
    /// The stores of this VM's roots, one entry for each root that has not been told to go.
    static ROOTS: RefCell<Vec<Keys>> = const { RefCell::new(Vec::new()) };
}

/// A root of this store goes. Whether no other of it is left in this VM.
fn is_last_of(store: &Keys) -> bool {
    ROOTS.with_borrow_mut(|roots| {
        let own = roots.iter().position(|known| known == store);
        own.map(|own| roots.swap_remove(own));
        !roots.contains(store)
    })
}

fn property(name: &str) -> Option<String> {
    let bytes = hostcalls::get_property(vec![name]).ok().flatten()?;
    String::from_utf8(bytes).ok()
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _: usize) {
        let header = |name| self.get_http_call_response_header_bytes(name);
        // No headers at all: the connection broke in mid-body. The getters would give an older answer's.
        let (status, served, retry_after, content_type, body) = match headers {
            0 => (None, None, None, None, None),
            _ => (
                header(":status"),
                header("x-envoy-upstream-service-time"),
                header("retry-after"),
                header("content-type"),
                self.get_http_call_response_body(0, body_size.min(ANSWER_BYTES_MAX)),
            ),
        };
        let date = retry_after.as_ref().and_then(|_| header("date"));
        let status = status.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
        let body = body.unwrap_or_default();
        let Some(work) = &mut self.work else { return };
        let Some(call) = work.calls.remove(&token) else {
            return;
        };
        let answer = Answer {
            status,
            from_upstream: served.is_some(),
            date: date.as_deref(),
            retry_after: retry_after.as_deref(),
            content_type: content_type.as_deref(),
            body: &body,
        };
        work.handle(Event::Answered(call, answer));
    }

    fn on_done(&mut self) -> bool {
        let Some(work) = &mut self.work else {
            return true;
        };
        work.plugin.doorbell.tell_the_rest();
        let is_last = is_last_of(&work.plugin.keys);
        work.handle(Event::Done { is_last });
        let idle = work.dispatcher.is_idle();
        // Not idle: the host waits until the last call is answered and settled.
        work.leaving = !idle;
        idle
    }
}

impl RootContext for Root {
    fn on_vm_start(&mut self, _: usize) -> bool {
        info!("embudo {}", env!("CARGO_PKG_VERSION"));
        true
    }

    fn on_configure(&mut self, _: usize) -> bool {
        match self.configure() {
            Ok(work) => {
                ROOTS.with_borrow_mut(|roots| roots.push(work.plugin.keys.clone()));
                self.work = Some(work);
                self.set_tick_period(Duration::from_millis(FIRST_TICK_MS));
                true
            }
            Err(problems) => {
                for problem in problems {
                    error!("embudo: {problem}");
                }
                false
            }
        }
    }

    fn on_tick(&mut self) {
        if let Some(work) = &mut self.work {
            work.plugin.wall.set(WallOffset::look());
            let turns = work.tick(self.id);
            let plugin = &work.plugin;
            let record = circuit::Record::read(&SharedData, &plugin.keys);
            plugin.circuit.set(record.state);
            let refused = record.troubles.iter();
            let refused = refused.filter_map(|t| Some((t.destination, t.refused?)));
            plugin.holding.borrow_mut().set_refused(refused.collect());
            plugin.awaited.replace(record);
            let mut proofs = plugin.proofs.borrow_mut();
            proofs.tick(&mut SharedData, &plugin.keys, plugin.now());
            drop(proofs);
            let barred = work.pass_barriers();
            work.let_go(self.id, &turns);
            work.resume(self.id, &barred);
        }
    }

    fn on_queue_ready(&mut self, queue: u32) {
        let Some(work) = &mut self.work else { return };
        let now = work.plugin.now();
        for _ in 0..RINGS_PER_WAKE_UP {
            let Some(shards) = Doorbell::next(queue) else {
                return;
            };
            work.handle_at(Event::Doorbell(&shards), now);
        }
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        // A stream for an unconfigured root cannot be: Envoy refuses the configuration instead.
        let plugin = Rc::clone(&self.work.as_ref()?.plugin);
        Some(Box::new(Stream::new(id, plugin)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

// === impl Work ===

impl Work {
    /// The dispatcher's tick, and the ring that was put off; while callers wait, a look at what has become of their
    /// updates in between. Gives the held whose turn it is.
    fn tick(&mut self, root: u32) -> Vec<Turn> {
        if !self.plugin.polls.get() {
            self.handle(Event::Tick);
            return Vec::new();
        }
        self.plugin.doorbell.tell_the_rest();
        let now_ms = host::mono_ms();
        if now_ms >= self.next_tick_ms {
            self.handle(Event::Tick);
            self.next_tick_ms = now_ms.saturating_add(self.tick_ms);
        }
        self.answer_waiters(root);
        let turns = self.look();
        let plugin = &self.plugin;
        if plugin.waiters.borrow().is_empty()
            && plugin.holding.borrow().is_empty()
            && plugin.barriers.borrow().is_empty()
        {
            self.plugin.polls.set(false);
            let _ = hostcalls::set_tick_period(Duration::from_millis(self.tick_ms));
        }
        turns
    }

    // ## Waiting => Answered
    //
    // The host sends the answers once this callback is over.
    /// Answers those streams that this root holds whose updates are settled, or which have waited for too long.
    fn answer_waiters(&self, root: u32) {
        let Plugin {
            rules,
            keys,
            stats,
            waiters,
            ..
        } = &*self.plugin;
        let mut waiters = waiters.borrow_mut();
        let answers = waiters.poll(&SharedData, keys, host::mono_ms());
        for AckAnswer { stream, told, .. } in &answers {
            // Gone, and its last callbacks with it: nobody is there to be answered.
            if hostcalls::set_effective_context(*stream).is_ok() {
                stream::tell(*told, &rules.config);
            }
        }
        if !answers.is_empty() {
            // Before anything else: what a root asks of the host must not be about a stream.
            let _ = hostcalls::set_effective_context(root);
        }
        for answer in answers {
            stats.borrow().told(answer.route, Some(answer.told));
        }
    }

    /// Looks which of the streams that this root holds may go on.
    fn look(&self) -> Vec<Turn> {
        let plugin = &self.plugin;
        if plugin.holding.borrow().is_empty() {
            return Vec::new();
        }
        let ask = Ask {
            body: b"",
            number: plugin.number.get(),
            vm: plugin.vm,
            is_stranger: false,
            is_seen: false,
            may_send: true,
            may_hold: false,
            refused: &[],
        };
        let mut holding = plugin.holding.borrow_mut();
        // Each that is looked at has a number of its own.
        let numbers = u64::try_from(holding.len()).unwrap_or(0);
        plugin.number.set(
            ask.number
                .wrapping_add(numbers.saturating_mul(CAS_ATTEMPTS_MAX.into())),
        );
        let turns = holding.look(
            &mut SharedData,
            &plugin.keys,
            &plugin.rules,
            ask,
            |subject| {
                let now = plugin.now();
                let mut proofs = plugin.proofs.borrow_mut();
                let (keys, rules) = (&plugin.keys, &plugin.rules);
                proofs.standing(&SharedData, keys, rules, subject, now) == Standing::Proven
            },
            plugin.now(),
        );
        drop(holding);
        let now_ms = host::mono_ms();
        for turn in &turns {
            plugin.stats.borrow().held(-1);
            // Whoever goes on reports its end; whoever is answered proves nothing.
            match turn.go {
                Go::Within(_) | Go::Untimed => plugin.proving.borrow_mut().forget(turn.stream),
                Go::Answer(_) => plugin.proving_ended(turn.stream, Ended::Accepted),
                Go::Busy => plugin.proving_ended(turn.stream, Ended::Other),
            }
            if let Some(shard) = turn.ring
                && !plugin.doorbell.ring(shard, true, now_ms)
            {
                plugin.poll();
            }
            let mut stats = plugin.stats.borrow_mut();
            for (route, end) in turn.superseded.ends() {
                stats.count(Counter::Items(route, end), 1);
            }
            stats.went_on(turn);
        }
        turns
    }

    // ## Held => at Laravel
    //
    // The host lets them go once this callback is over, so this is the last that a tick does; headers are set before
    // the resume and never after it: by then they are gone.
    fn let_go(&self, root: u32, turns: &[Turn]) {
        let plugin = &self.plugin;
        let mut going = Vec::new();
        for turn in turns {
            // Its last callbacks would have given its place back; be that as it may, nobody is there.
            if hostcalls::set_effective_context(turn.stream).is_err() {
                self.never_left(turn.stream);
                continue;
            }
            match turn.go {
                Go::Within(ms) => {
                    // So that its answer can be read.
                    let map = MapType::HttpRequestHeaders;
                    let _ = hostcalls::set_map_value(map, "accept-encoding", None);
                    going.push((turn.stream, Some(ms)));
                }
                Go::Untimed => going.push((turn.stream, None)),
                Go::Answer(reply) => stream::answer(reply, &plugin.rules.config),
                Go::Busy => stream::answer(Reply::Busy, &plugin.rules.config),
            }
        }
        let (times, now_ms) = (&plugin.rules.config.times, host::mono_ms());
        for (stream, ms) in going {
            let _ = hostcalls::set_effective_context(stream);
            if let Some(ms) = ms {
                let may_take = plugin.holding.borrow().may_take(stream, ms, times, now_ms);
                let Some(ms) = may_take else {
                    self.never_left(stream);
                    let _ = hostcalls::set_effective_context(stream);
                    stream::answer(Reply::Busy, &plugin.rules.config);
                    continue;
                };
                let (map, ms) = (MapType::HttpRequestHeaders, ms.to_string());
                let name = "x-envoy-upstream-rq-timeout-ms";
                let _ = hostcalls::set_map_value(map, name, Some(&ms));
            }
            let _ = hostcalls::resume_http_request();
        }
        if !turns.is_empty() {
            let _ = hostcalls::set_effective_context(root);
        }
    }

    /// The streams that this root holds at a barrier and that wait for nothing any more.
    fn pass_barriers(&self) -> Vec<u32> {
        let plugin = &self.plugin;
        let mut barriers = plugin.barriers.borrow_mut();
        if barriers.is_empty() {
            return Vec::new();
        }
        let (record, now) = (plugin.awaited.borrow(), plugin.now());
        let going = barriers.look(&SharedData, &plugin.keys, &plugin.rules, &record, now);
        for _ in &going {
            plugin.stats.borrow().held(-1);
        }
        going
    }

    // ## Barred => at Laravel
    //
    // As they came: the host lets them go once this callback is over.
    fn resume(&self, root: u32, streams: &[u32]) {
        for stream in streams {
            if hostcalls::set_effective_context(*stream).is_ok() {
                let _ = hostcalls::resume_http_request();
            }
        }
        if !streams.is_empty() {
            let _ = hostcalls::set_effective_context(root);
        }
    }

    /// A request that was held, and whose turn it was, does not go on after all.
    fn never_left(&self, stream: u32) {
        let plugin = &self.plugin;
        plugin.proving_ended(stream, Ended::Other);
        let gone = plugin.holding.borrow_mut().take_gone(stream);
        if let Some(gone) = gone {
            plugin.holding.borrow_mut().answered();
            if let Some(through) = gone.through {
                plugin.end(&through, Fate::NeverHad);
            }
        }
    }

    fn handle(&mut self, event: Event<'_>) {
        self.handle_at(event, self.plugin.now());
    }

    /// Feeds an event to the dispatcher and carries out what it wants, in order.
    fn handle_at(&mut self, event: Event<'_>, now: Now) {
        let mut effects = Vec::new();
        self.dispatcher
            .step(event, now, &mut SharedData, &mut effects);
        let mut todo = VecDeque::from(effects);
        while let Some(effect) = todo.pop_front() {
            if let Some((call, why)) = self.carry_out(effect) {
                let mut more = Vec::new();
                let event = Event::NotSent(call, why);
                self.dispatcher
                    .step(event, self.plugin.now(), &mut SharedData, &mut more);
                todo.extend(more);
            }
        }
    }

    /// Gives the call that could not be made.
    fn carry_out(&mut self, effect: Effect) -> Option<(u64, NotSent)> {
        match effect {
            Effect::Call(call) => {
                // The last look at the clock before the call leaves.
                if host::mono_ms() > call.send_by_ms && !sabotage::is(Sabotage::SendAtAnyTime) {
                    return Some((call.id, NotSent::Late));
                }
                let headers = call
                    .headers
                    .iter()
                    .map(|(n, v)| (n.as_str(), v.as_str()))
                    .collect();
                let timeout = Duration::from_millis(call.timeout_ms);
                let body = Some(call.body.as_slice());
                match hostcalls::dispatch_http_call(&call.cluster, headers, body, vec![], timeout) {
                    Ok(token) => {
                        self.calls.insert(token, call.id);
                    }
                    Err(Status::BadArgument) => return Some((call.id, NotSent::Misconfigured)),
                    Err(_) => return Some((call.id, NotSent::Ejected)),
                }
            }
            Effect::TickEvery(ms) => {
                self.tick_ms = ms;
                if !self.plugin.polls.get() {
                    let _ = hostcalls::set_tick_period(Duration::from_millis(ms));
                }
            }
            Effect::RegisterDoorbell => {
                self.plugin.doorbell.register();
                if let Some(wanted) = self.shards_wanted.take() {
                    let kept = self.plugin.rules.config.shards;
                    warn!("{kept} shards are in use and stay; {wanted} need a restart of Envoy");
                }
            }
            Effect::Count(counter, amount) => {
                self.plugin.stats.borrow_mut().count(counter, amount);
            }
            Effect::Record(histogram, value) => {
                self.plugin.stats.borrow().record(histogram, value);
            }
            Effect::Set(gauge, value) => self.plugin.stats.borrow().set(gauge, value),
            Effect::Log(Level::Info, line) => info!("{line}"),
            Effect::Log(Level::Warn, line) => warn!("{line}"),
            Effect::Log(Level::Error, line) => error!("{line}"),
            Effect::Finished if self.leaving => {
                let _ = hostcalls::done();
            }
            Effect::Finished => {}
        }
        None
    }
}
