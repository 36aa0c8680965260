//! Cases from dice: real requests, answers, configurations and stored values, and what is next to them.
//!
//! Bytes that are wholly arbitrary end at the first check. So most of what is made here was valid once
//! and had an accident: a bit, a count, a cut. What is stored is also made whole from the record's own
//! types with numbers and texts that no writer would choose.

use bytes::Bytes;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::case::{Case, Edit, Key, Step};
use super::stored;
use crate::sim::abi::Headers;
use crate::sim::host::{Body, Cluster, Response};

/// Steps of one case.
const STEPS_MAX: usize = 14;

/// Few sessions, so that they meet.
const SESSIONS: [&str; 6] = ["a", "b", "s-1", "s-2", "7", "\\u00e9"];

/// A process of two shards, in which stored values are met at once.
const PLAIN: &str = r#"{"max_sessions":16,"assume":{"callers":true}}"#;

/// Configurations that had no accident yet.
const CONFIGURATIONS: [&str; 8] = [
    r#"{"max_sessions":16,"read_refresh_ms":1000,"stale_if_error_ms":1000}"#,
    "",
    "{}",
    PLAIN,
    r#"{"max_sessions":16,"ack_timeout_ms":1000,"routes":[{"name":"qr","ack":"delivered"},{"name":"status","ack":"delivered"}]}"#,
    r#"{"max_sessions":1,"max_in_flight":1,"lease_ms":1000,"dedup_ttl_ms":1,"prefixes":["/api",""]}"#,
    r#"{"routes":[{"name":"qr","batch":{"max_items":2,"max_bytes":1024,"quiet_ms":0}},{"name":"status","expire_after_ms":5,"priority":["a"]}]}"#,
    r#"{"upstream":{"cluster":"laravel_batch","authority":"x.test","prefix_rewrite":"/v2","headers":{"x-a":"b"}},"answer_status":202,"bypass_header":"x-no"}"#,
];

const NUMBERS: [u32; 8] = [
    0,
    1,
    0x7f,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_fffe,
    u32::MAX,
];

const NAMES: [&str; 24] = [
    ":method",
    ":path",
    ":authority",
    ":scheme",
    "content-type",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "authorization",
    "x-api-key",
    "x-forwarded-proto",
    "x-hub-signature-256",
    "x-hmac-signature",
    "x-embudo-bypass",
    "x-embudo",
    "accept",
    "cookie",
    "retry-after",
    ":status",
    "x-envoy-upstream-service-time",
    "te",
    "x-request-id",
    "a",
    "user-agent",
];

const STATUSES: [&str; 16] = [
    "200",
    "201",
    "204",
    "301",
    "404",
    "408",
    "413",
    "422",
    "425",
    "429",
    "500",
    "502",
    "503",
    "504",
    "0",
    "99999999999999999999",
];

const ANSWERS: [&str; 15] = [
    r#"{"estado_qr":"pending","status":"pending"}"#,
    r#"{"x":{"estado_qr":"no"},"estado_qr" : "a\u0063tive" ,"status":1}"#,
    r#"{"estado_qr":null,"estado":["x"],"status":"connecting"}"#,
    r#"{"success":true}"#,
    r#"{"success":false}"#,
    r#"{"success":{"success":[true]}}"#,
    "{}",
    "[]",
    "",
    "upstream connect error or disconnect/reset before headers. reset reason: connection failure",
    "upstream request timeout",
    "no healthy upstream",
    r#"{"success":true,"success":false}"#,
    r#"{"message":"The given data was invalid.","errors":{"qrs.0.qr":["x"]}}"#,
    "<html>",
];

/// Where the dice lie.
pub(super) struct Dice(ChaCha8Rng);

// === impl Case ===

impl Case {
    /// The case of this number.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        let mut dice = Dice(rng);
        let plain = dice.chance(75);
        let configuration = match plain {
            true => PLAIN.as_bytes().to_vec(),
            false => dice.configuration(),
        };
        let layout = dice.chance(4).then(|| dice.layout());
        let count = dice.below(STEPS_MAX) + 1;
        let steps = (0..count).map(|_| dice.step()).collect();
        Self {
            configuration,
            plain: plain && layout.is_none(),
            layout,
            steps,
        }
    }
}

// === impl Dice ===

impl Dice {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0.random_range(0..limit.max(1))
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.0.random_ratio(percent.min(100), 100)
    }

    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        *all.choose(&mut self.0)
            .expect("there is something to choose from")
    }

    /// Mostly short.
    fn length(&mut self) -> usize {
        match self.below(20) {
            0 => self.below(70_000),
            1..=3 => self.below(2_000),
            _ => self.below(40),
        }
    }

    pub(super) fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.length()];
        self.0.fill_bytes(&mut bytes);
        if self.chance(30) {
            bytes.iter_mut().for_each(|byte| *byte = b' ' + *byte % 95);
        }
        bytes
    }

    pub(super) fn number(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::MAX - self.0.random_range(0..1_000),
            3 => self.0.next_u64(),
            // About the simulation's own time, ms.
            4 => 500_000 + self.0.random_range(0..400_000),
            _ => self.0.random_range(0..1_000),
        }
    }

    pub(super) fn edits(&mut self) -> Vec<Edit> {
        let count = match self.below(4) {
            0 => self.below(30),
            _ => self.below(3) + 1,
        };
        (0..count).map(|_| self.edit()).collect()
    }

    fn edit(&mut self) -> Edit {
        let at = self.0.next_u32() as usize;
        match self.below(9) {
            0..=2 => Edit::Flip {
                at,
                bit: self.0.random_range(0..8),
            },
            3..=4 => Edit::Put {
                at,
                byte: self.one_of(b"\0\xff{}[]\",:\\/019.eE-+ tu\xed\xa0\x80\xc3"),
            },
            5 => Edit::Number {
                at,
                number: self.one_of(&NUMBERS),
            },
            6 => Edit::Cut { at },
            _ => Edit::Repeat {
                at,
                length: self.length(),
            },
        }
    }

    /// As it is, or after an accident, or something else altogether.
    fn perhaps_spoiled(&mut self, valid: &[u8]) -> Vec<u8> {
        let mut bytes = valid.to_vec();
        match self.below(10) {
            0 => return self.bytes(),
            1..=3 => self.edits().iter().for_each(|edit| edit.apply(&mut bytes)),
            _ => {}
        }
        bytes
    }

    fn configuration(&mut self) -> Vec<u8> {
        let base = self.one_of(&CONFIGURATIONS);
        self.perhaps_spoiled(base.as_bytes())
    }

    fn layout(&mut self) -> Vec<u8> {
        let shards = self.one_of(&NUMBERS);
        let mut bytes = embudo_core::layout::VERSION.to_le_bytes().to_vec();
        bytes.extend_from_slice(&shards.to_le_bytes());
        bytes.extend_from_slice(&[7; 16]);
        self.perhaps_spoiled(&bytes)
    }

    fn step(&mut self) -> Step {
        match self.below(40) {
            0..=14 => self.request(),
            15..=17 => self.relayed(),
            18..=20 => Step::Answer {
                which: self.below(8),
                response: self.response(),
            },
            21 => Step::Ring { item: self.item() },
            22..=25 => Step::Spoil {
                key: self.key(),
                edits: self.edits(),
            },
            26..=29 => self.store(),
            30..=36 => Step::Time {
                ms: self.one_of(&[1, 50, 300, 1_000, 5_000, 32_000, 70_000, 700_000]),
                ticks: self.one_of(&[1, 1, 2, 4, 8]),
            },
            37..=38 => {
                let all = [Cluster::Healthy, Cluster::Ejected, Cluster::Missing];
                Step::Cluster(self.one_of(&all))
            }
            _ => Step::Configure {
                configuration: self.configuration(),
            },
        }
    }

    fn item(&mut self) -> Vec<u8> {
        match self.chance(50) {
            true => self.one_of(&NUMBERS).to_le_bytes().to_vec(),
            false => self.bytes(),
        }
    }

    fn key(&mut self) -> Key {
        match self.below(8) {
            0 => Key::Layout,
            1 => Key::Lease,
            _ => Key::Shard(self.0.random_range(0..2)),
        }
    }

    fn store(&mut self) -> Step {
        let key = self.key();
        let value = match (key, self.below(3)) {
            (_, 0) => self.bytes(),
            (Key::Layout, _) => self.layout(),
            (Key::Lease, _) => (0..5).flat_map(|_| self.number().to_le_bytes()).collect(),
            (Key::Shard(_), _) => stored::shard(self),
        };
        Step::Store { key, value }
    }

    /// A read of one of the sessions.
    fn read(&mut self) -> Step {
        let session = self.one_of(&SESSIONS);
        let path = format!("/api/whatsapp/status/{session}");
        let path = self.perhaps_spoiled(path.as_bytes());
        let mut headers: Headers = vec![
            (":method".to_owned(), b"GET".to_vec()),
            (":path".to_owned(), path),
            (":authority".to_owned(), b"laravel.test".to_vec()),
            ("accept".to_owned(), b"application/json".to_vec()),
        ];
        if self.chance(20) {
            headers.push(("cache-control".to_owned(), b"no-cache".to_vec()));
        }
        self.disturb(&mut headers);
        Step::Request {
            headers,
            body: Body::default(),
        }
    }

    fn request(&mut self) -> Step {
        if self.chance(25) {
            return self.read();
        }
        let qr = self.chance(50);
        let path = match qr {
            true => "/api/qr",
            false => "/api/whatsapp/status",
        };
        let mut headers: Headers = [
            (":method", "POST"),
            (":path", path),
            (":authority", "laravel.test"),
            ("content-type", "application/json"),
            ("x-forwarded-proto", "http"),
        ]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .into();
        self.disturb(&mut headers);
        let valid = self.body(qr);
        let body = self.perhaps_spoiled(valid.as_bytes());
        Step::Request {
            headers,
            body: self.pieces(&body),
        }
    }

    /// A body as gateways send it.
    pub(super) fn body(&mut self, qr: bool) -> String {
        let key = self.one_of(&["session_id", "session_id", "sessionId"]);
        let session = self.one_of(&SESSIONS);
        let session = match self.chance(85) {
            true => format!("\"{session}\""),
            false => self
                .one_of(&["7", "-0", "1e3", "null", "[]", "18446744073709551616"])
                .to_owned(),
        };
        let value = match qr {
            true => format!("2@{}", self.below(4)),
            false => self
                .one_of(&[
                    "pending",
                    "active",
                    "inactive",
                    "connecting",
                    "disconnected",
                ])
                .to_owned(),
        };
        let value_key = if qr { "qr" } else { "estado_qr" };
        let more = match self.below(8) {
            0 => format!(",\"session_data\":{}", "[".repeat(self.below(40))),
            1 => ",\"session_data\":{\"phone\":\"1\",\"a\":[1,2.5,true,null]}".to_owned(),
            2 => format!(",\"x\":\"{}\"", "y".repeat(self.length())),
            _ => String::new(),
        };
        format!("{{\"{key}\":{session},\"{value_key}\":\"{value}\"{more}}}")
    }

    /// In one piece or in many, with or without an end of its own.
    fn pieces(&mut self, body: &[u8]) -> Body {
        let mut pieces = Vec::new();
        let mut rest = body;
        while !rest.is_empty() && self.chance(30) {
            let (head, tail) = rest.split_at(self.below(rest.len() + 1));
            pieces.push(Bytes::copy_from_slice(head));
            rest = tail;
        }
        if !(rest.is_empty() && self.chance(50)) {
            pieces.push(Bytes::copy_from_slice(rest));
        }
        Body {
            pieces,
            trailers: self.chance(15),
            cut: false,
        }
    }

    /// Laravel's answer to what passed; now and then it breaks off.
    fn relayed(&mut self) -> Step {
        let headers = self.response_headers();
        let answer = self.response().body;
        let mut body = self.pieces(&answer);
        body.cut = !body.trailers && self.chance(5);
        Step::Relay { headers, body }
    }

    fn disturb(&mut self, headers: &mut Headers) {
        if self.chance(20) {
            headers.push(("authorization".to_owned(), b"Bearer t".to_vec()));
        }
        let times = match self.below(10) {
            0..=5 => 0,
            6..=8 => self.below(3) + 1,
            _ => self.below(200),
        };
        for _ in 0..times {
            match self.below(4) {
                0 if !headers.is_empty() => {
                    headers.swap_remove(self.below(headers.len()));
                }
                1 if !headers.is_empty() => {
                    let at = self.below(headers.len());
                    let value = self.bytes();
                    headers[at].1 = value;
                }
                _ => {
                    let name = self.one_of(&NAMES).to_owned();
                    let value = match self.chance(50) {
                        true => self.bytes(),
                        false => headers.first().map(|(_, v)| v.clone()).unwrap_or_default(),
                    };
                    headers.push((name, value));
                }
            }
        }
    }

    fn response_headers(&mut self) -> Headers {
        let mut headers = Headers::new();
        if self.chance(90) {
            let status = self.one_of(&STATUSES);
            headers.push((
                ":status".to_owned(),
                self.perhaps_spoiled(status.as_bytes()),
            ));
        }
        if self.chance(70) {
            headers.push(("x-envoy-upstream-service-time".to_owned(), b"3".to_vec()));
        }
        if self.chance(20) {
            let value = self.one_of(&["1", "120", "-1", "99999999999999999999999", "Wed, 21 Oct"]);
            headers.push((
                "retry-after".to_owned(),
                self.perhaps_spoiled(value.as_bytes()),
            ));
        }
        if self.chance(20) {
            self.disturb(&mut headers);
        }
        headers
    }

    fn response(&mut self) -> Response {
        // The connection broke in mid-body.
        if self.chance(8) {
            return Response::default();
        }
        let body = self.one_of(&ANSWERS);
        Response {
            headers: self.response_headers(),
            body: self.perhaps_spoiled(body.as_bytes()).into(),
        }
    }
}
