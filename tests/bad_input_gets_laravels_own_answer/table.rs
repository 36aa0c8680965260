//! The cases, one a line where they fit.

use std::io::Write as _;

use embudo_tests::raw::{self, Message};
use flate2::Compression;
use flate2::write::GzEncoder;

/// The longest body that Embudo queues.
const QUEUED_BYTES_MAX: usize = 64 * 1024;

/// Far beyond what Embudo holds, and beyond what Envoy reads at once.
pub(crate) const UPLOAD_BYTES: usize = 2 * 1024 * 1024;

/// The header by which a request is found again at Laravel.
pub(crate) const CASE: &str = "x-case";

/// A request, and what must become of it.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) message: Message,
    pub(crate) http2: bool,
    pub(crate) expected: Expected,
}

/// What must become of a request.
pub(crate) enum Expected {
    /// Taken in; Laravel must end up with this value of this session, if it can take it at all.
    Queued(Option<(String, String)>),
    /// Recognised as not ours, for this reason.
    Bypass(&'static str),
    /// On no intercepted route: the filter never sees it.
    Untouched,
}

/// The table under construction.
#[derive(Default)]
struct Table {
    cases: Vec<Case>,
    sessions: u32,
}

/// Every case.
pub(crate) fn cases() -> Vec<Case> {
    let mut table = Table::default();
    table.not_json();
    table.json_of_another_shape();
    table.what_php_would_read_otherwise();
    table.odd_but_valid();
    table.sizes_and_framing();
    table.headers();
    table.methods_and_paths();
    table.over_http2();
    table.cases
}

impl Table {
    fn not_json(&mut self) {
        let valid = qr_body("00000000-0000-4000-8000-00000000000a", "2@x");
        let cut = &valid[..valid.len() - 1];
        for (name, body) in [
            ("text", &b"hello"[..]),
            ("form fields", b"session_id=1&qr=2"),
            ("spaces only", b"  \r\n\t "),
            ("an object cut short", cut.as_bytes()),
            ("something after the object", b"{\"session_id\":\"s\",\"qr\":\"x\"} x"),
            ("two objects", b"{\"session_id\":\"s\",\"qr\":\"x\"}{}"),
            ("single quotes", b"{'session_id':'s','qr':'x'}"),
            ("a comment", b"{\"session_id\":\"s\",/**/\"qr\":\"x\"}"),
            ("a comma too many", b"{\"session_id\":\"s\",\"qr\":\"x\",}"),
            ("NaN", b"{\"session_id\":\"s\",\"qr\":\"x\",\"n\":NaN}"),
            ("a byte order mark", b"\xef\xbb\xbf{\"session_id\":\"s\",\"qr\":\"x\"}"),
            ("UTF-16", b"{\0\"\0q\0r\0\"\0:\0\"\0x\0\"\0}\0"),
            ("a raw NUL in a string", b"{\"session_id\":\"s\",\"qr\":\"a\0b\"}"),
            ("a raw NUL after the object", b"{\"session_id\":\"s\",\"qr\":\"x\"}\0"),
            ("a raw line feed in a string", b"{\"session_id\":\"s\",\"qr\":\"a\nb\"}"),
            ("a byte that is no UTF-8", b"{\"session_id\":\"s\",\"qr\":\"a\xffb\"}"),
            ("a key that is no UTF-8", b"{\"session_id\":\"s\",\"qr\":\"x\",\"\xff\":1}"),
            ("UTF-8 that is cut", b"{\"session_id\":\"s\",\"qr\":\"\xe2\x82\"}"),
            ("UTF-8 that is overlong", b"{\"session_id\":\"s\",\"qr\":\"\xc0\x80\"}"),
            ("a surrogate in UTF-8", b"{\"session_id\":\"s\",\"qr\":\"\xed\xa0\x80\"}"),
            ("a lone high surrogate", br#"{"session_id":"s","qr":"\ud800"}"#),
            ("a lone low surrogate", br#"{"session_id":"s","qr":"\udc00x"}"#),
            ("two high surrogates", br#"{"session_id":"s","qr":"\ud800\ud800"}"#),
            ("a lone surrogate elsewhere", br#"{"session_id":"s","qr":"x","more":["\ud800"]}"#),
            ("a lone surrogate in a key", br#"{"session_id":"s","qr":"x","\ud800":1}"#),
            ("an escape that is none", br#"{"session_id":"s","qr":"\x41"}"#),
            ("only NULs", b"\0\0\0\0"),
        ] {
            self.bypass(name, Message::json("/api/qr", body), "syntax");
        }
        // No `accept` of JSON first: Laravel redirects instead of a 422, and that must come back.
        let browser = Message::json("/api/qr", "hello").without("accept");
        self.bypass("not JSON, from a browser", browser, "syntax");
        let status = Message::json("/api/whatsapp/status", "hello");
        self.bypass("not JSON, as a state", status, "syntax");
    }

    fn json_of_another_shape(&mut self) {
        let deep_array = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for (name, body) in [
            ("an array", r#"[{"session_id":"s","qr":"x"}]"#),
            ("a string", r#""2@x""#),
            ("a number", "42"),
            ("null", "null"),
            ("true", "true"),
            ("arrays 10,000 deep", &deep_array),
        ] {
            self.bypass(name, Message::json("/api/qr", body), "not_an_object");
        }
        for (name, session) in [
            ("null", "null"),
            ("an empty string", r#""""#),
            ("an array", r#"["s"]"#),
            ("an object", r#"{"id":"s"}"#),
            ("true", "true"),
            ("a fraction", "1.5"),
            ("a number beyond 64 bits", "123456789012345678901234567890"),
        ] {
            let body = format!(r#"{{"session_id":{session},"qr":"2@x"}}"#);
            let name = format!("session is {name}");
            self.bypass(&name, Message::json("/api/qr", body), "no_session");
        }
        let missing = Message::json("/api/qr", r#"{"qr":"2@x"}"#);
        self.bypass("session is missing", missing, "no_session");
        self.bypass("an empty object", Message::json("/api/qr", "{}"), "no_session");
        let nested = r#"{"data":{"session_id":"s","qr":"x"}}"#;
        let nested = Message::json("/api/qr", nested);
        self.bypass("session in another place", nested, "no_session");
        for value in ["null", "7", "true", "{}", "[]", r#"["2@x"]"#, r#""""#, "1.5"] {
            let session = self.session();
            let body = format!(r#"{{"session_id":"{session}","qr":{value}}}"#);
            self.bypass(&format!("qr is {value}"), Message::json("/api/qr", body), "no_value");
            let body = format!(r#"{{"session_id":"{session}","estado_qr":{value}}}"#);
            let state = Message::json("/api/whatsapp/status", body);
            self.bypass(&format!("state is {value}"), state, "no_value");
        }
        let session = self.session();
        let missing = Message::json("/api/qr", format!(r#"{{"session_id":"{session}"}}"#));
        self.bypass("qr is missing", missing, "no_value");
    }

    fn what_php_would_read_otherwise(&mut self) {
        let session = self.session();
        for (name, more) in [
            ("a key twice", r#""qr":"other""#.to_owned()),
            ("a key twice, once escaped", r#""\u0071r":"other""#.to_owned()),
            ("the session twice", format!(r#""session_id":"{session}""#)),
            ("a key twice, nested", r#""more":{"a":1,"a":2}"#.to_owned()),
            ("a key twice, in an array", r#""more":[0,[{"a":1,"a":1}]]"#.to_owned()),
            ("the empty key twice", r#""":1,"":2"#.to_owned()),
        ] {
            let body = format!(r#"{{"session_id":"{session}","qr":"2@x",{more}}}"#);
            self.bypass(name, Message::json("/api/qr", body), "duplicate_key");
        }
        for levels in [33, 513, 10_000] {
            let message = Message::json("/api/qr", nested(&session, levels));
            self.bypass(&format!("{levels} levels"), message, "too_deep");
        }
        let open = format!(r#"{{"session_id":"{session}","qr":{}"#, "[".repeat(10_000));
        let open = Message::json("/api/qr", open);
        self.bypass("10,000 levels that never close", open, "too_deep");
        let objects = r#"{"a":"#.repeat(5_000);
        let objects = Message::json("/api/qr", objects);
        self.bypass("5,000 objects that never close", objects, "too_deep");
    }

    fn odd_but_valid(&mut self) {
        let session = self.session();
        let nul = format!(r#"{{"session_id":"{session}","qr":"2@a\u0000b"}}"#);
        self.queued("an escaped NUL", Message::json("/api/qr", nul), &session, "2@a\0b");

        let session = self.session();
        let escaped = format!(r#"{{"session\u005fid":"{session}","\u0071r":"2\u0040\u00e9"}}"#);
        self.queued("escaped keys", Message::json("/api/qr", escaped), &session, "2@é");

        let session = self.session();
        let pair = format!(r#"{{"session_id":"{session}","qr":"2@\ud83d\ude00"}}"#);
        self.queued("a surrogate pair", Message::json("/api/qr", pair), &session, "2@😀");

        let session = self.session();
        let spaced = format!("\r\n\t {{ \"qr\" :\n\"2@x\" ,\t\"session_id\" : \"{session}\" }} \r\n");
        self.queued("spaces everywhere", Message::json("/api/qr", spaced), &session, "2@x");

        let session = self.session();
        let camel = format!(r#"{{"sessionId":"{session}","qr":"2@x"}}"#);
        self.queued("the other name of the session", Message::json("/api/qr", camel), &session, "2@x");

        let session = self.session();
        let deep = Message::json("/api/qr", nested(&session, 32));
        self.queued("32 levels", deep, &session, "2@x");

        let session = self.session();
        let keys: String = (0..2_000).map(|i| format!(r#","k{i}":{i}"#)).collect();
        let keys = format!(r#"{{"session_id":"{session}","qr":"2@x"{keys}}}"#);
        self.queued("2,000 keys", Message::json("/api/qr", keys), &session, "2@x");

        let session = self.session();
        let big = format!(r#"{{"session_id":"{session}","qr":"2@x","n":[1e308,-0,9007199254740993]}}"#);
        self.queued("numbers at the edge", Message::json("/api/qr", big), &session, "2@x");

        // Laravel wants a UUID, so these can never be delivered; another authority keeps them away from
        // the batches of the others.
        let elsewhere = |body: String| Message::json("/api/qr", body).replacing("host", "other.test");
        let long = format!(r#"{{"session_id":"{}","qr":"2@x"}}"#, "s".repeat(30_000));
        self.push("a session of 30,000 characters", elsewhere(long), Expected::Queued(None));
        let number = r#"{"session_id":18446744073709551615,"qr":"2@x"}"#.to_owned();
        self.push("a session that is a number", elsewhere(number), Expected::Queued(None));
    }

    fn sizes_and_framing(&mut self) {
        let session = self.session();
        let (value, body) = sized(&session, QUEUED_BYTES_MAX);
        self.queued("64 KiB", Message::json("/api/qr", body), &session, &value);
        let session = self.session();
        let (value, body) = sized(&session, QUEUED_BYTES_MAX);
        let chunked = Message::json("/api/qr", body).in_chunks(1_000);
        self.queued("64 KiB in chunks", chunked, &session, &value);

        let session = self.session();
        for (name, bytes) in [("64 KiB and a byte", QUEUED_BYTES_MAX + 1), ("2 MiB", UPLOAD_BYTES)] {
            let message = Message::json("/api/qr", sized(&session, bytes).1);
            self.bypass(name, message.clone(), "too_large");
            let chunked = message.in_chunks(30_000);
            self.bypass(&format!("{name} in chunks"), chunked, "too_large");
        }
        let noise: Vec<u8> = (0..UPLOAD_BYTES).map(|i| (i * 31 / 8) as u8).collect();
        self.bypass("2 MiB of noise", Message::json("/api/qr", noise).in_chunks(65_536), "too_large");

        let session = self.session();
        let small = Message::json("/api/qr", qr_body(&session, "2@x")).in_chunks(7);
        self.queued("chunked", small, &session, "2@x");
        let session = self.session();
        let trailers = Message::json("/api/qr", qr_body(&session, "2@x")).in_chunks(30);
        let trailers = trailers.with_trailer("x-checksum", "1");
        self.queued("chunked with trailers", trailers, &session, "2@x");
        let trailers = Message::json("/api/qr", "hello").in_chunks(2).with_trailer("x-checksum", "1");
        self.bypass("not JSON with trailers", trailers, "syntax");

        let empty = || Message::json("/api/qr", "");
        self.bypass("an empty body", empty(), "empty");
        self.bypass("no body in chunks", empty().in_chunks(1), "empty");
        let unframed = Message { framing: raw::Framing::None, ..empty() };
        self.bypass("neither length nor chunks", unframed, "empty");
    }

    fn headers(&mut self) {
        // What tells nobody apart does not matter, whatever its bytes (a referrer beside no cookie is such); what Laravel could tell apart has to arrive.
        for (header, carried) in [
            ("user-agent", false),
            ("x-request-id", false),
            ("accept-language", false),
            ("referer", false),
            ("x-custom", true),
        ] {
            let session = self.session();
            let odd = Message::json("/api/qr", qr_body(&session, "2@x")).with(header, b"a\xff\xfe\x80");
            let name = format!("{header} that is no UTF-8");
            match carried {
                true => self.bypass(&name, odd, "header_bytes"),
                false => self.queued(&name, odd, &session, "2@x"),
            }
        }
        let valid = || Message::json("/api/qr", qr_body("00000000-0000-4000-8000-00000000000b", "2@x"));
        for (name, value, reason) in [
            ("authorization", &b"Bearer \xff"[..], "header_bytes"),
            ("x-api-key", b"\xff", "header_bytes"),
            ("cookie", b"\xff", "header_bytes"),
            ("x-hub-signature-256", b"sha256=00", "signature"),
            ("x-hub-signature-256", b"\xff", "signature"),
            ("x-webhook-hmac", b"00", "signature"),
            ("x-webhook-signature", b"00", "signature"),
            ("x-whatsapp-signature", b"00", "signature"),
            ("x-baileys-signature", b"00", "signature"),
            ("x-openwa-signature", b"00", "signature"),
            ("x-hmac-signature", b"00", "signature"),
            ("x-embudo-bypass", b"1", "header"),
            ("x-embudo-bypass", b"", "header"),
            ("X-Embudo-Bypass", b"\xff", "header"),
        ] {
            let name_of_case = format!("{name}: {}", value.escape_ascii());
            self.bypass(&name_of_case, valid().with(name, value), reason);
        }
        for (name, value) in [
            ("authorization", "Bearer planted"),
            ("x-api-key", "k"),
            ("cookie", "laravel_session=1"),
        ] {
            let session = self.session();
            let message = Message::json("/api/qr", qr_body(&session, "2@x")).with(name, value);
            self.queued(&format!("{name}: {value}"), message, &session, "2@x");
        }
        for value in [
            &b"text/plain"[..],
            b"application/x-www-form-urlencoded",
            b"multipart/form-data; boundary=x",
            b"APPLICATION/JSON",
            b"",
        ] {
            let name = format!("content-type: {}", value.escape_ascii());
            self.bypass(&name, valid().replacing("content-type", value), "encoding");
        }
        let odd = valid().replacing("content-type", b"\xff");
        self.bypass("a content-type that is no UTF-8", odd, "header_bytes");
        let untyped = valid().without("content-type");
        self.bypass("no content-type", untyped, "encoding");
        let zipped = valid();
        let zipped = zipped.clone().with("content-encoding", "gzip").with_body(gzip(&zipped.body));
        self.bypass("gzip", zipped, "encoding");
        self.bypass("deflate by name only", valid().with("content-encoding", "deflate"), "encoding");
        let twice = valid().with("content-encoding", "gzip").with("content-encoding", "identity");
        self.bypass("two encodings", twice, "encoding");
        self.bypass("a host of 5,000 bytes", valid().replacing("host", "h".repeat(5_000)), "header_bytes");

        for (name, typed) in [
            ("a charset", "application/json; charset=utf-8"),
            ("JSON by suffix", "application/vnd.api+json"),
            ("what Laravel takes for JSON", "application/jsonp"),
        ] {
            let session = self.session();
            let message = Message::json("/api/qr", qr_body(&session, "2@x"));
            self.queued(name, message.replacing("content-type", typed), &session, "2@x");
        }
        // Envoy joins the two, so Laravel sees "text/plain,application/json", and takes it for JSON.
        let session = self.session();
        let typed = Message::json("/api/qr", qr_body(&session, "2@x")).with("content-type", "text/plain");
        self.queued("two content types", typed, &session, "2@x");
        let session = self.session();
        let plain = Message::json("/api/qr", qr_body(&session, "2@x"));
        self.queued("identity", plain.with("content-encoding", "identity"), &session, "2@x");
        // Those that tell nobody apart in any number, those that are carried in a bounded one.
        for (prefix, carried) in [("x-b3-many", false), ("x-many", true)] {
            let session = self.session();
            let mut many = Message::json("/api/qr", qr_body(&session, "2@x"));
            for i in 0..80 {
                many = many.with(&format!("{prefix}-{i}"), "v".repeat(500));
            }
            let name = format!("80 headers {prefix}-… of half a KiB");
            let session_again = self.session();
            let long = Message::json("/api/qr", qr_body(&session_again, "2@x"));
            let long = long.with(&format!("{prefix}-long"), "v".repeat(50_000));
            let name_of_long = format!("a header {prefix}-long of 50,000 bytes");
            if carried {
                self.bypass(&name, many, "header_bytes");
                self.bypass(&name_of_long, long, "header_bytes");
            } else {
                self.queued(&name, many, &session, "2@x");
                self.queued(&name_of_long, long, &session_again, "2@x");
            }
        }
        let session = self.session();
        let expect = Message::json("/api/qr", qr_body(&session, "2@x")).with("expect", "100-continue");
        self.queued("expect: 100-continue", expect, &session, "2@x");
        let session = self.session();
        let close = Message::json("/api/qr", qr_body(&session, "2@x")).with("connection", "close");
        self.queued("connection: close", close, &session, "2@x");
    }

    fn methods_and_paths(&mut self) {
        let session = self.session();
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"] {
            for path in ["/api/qr", "/api/whatsapp/status"] {
                let bare = Message::new(method, path).with("accept", "application/json");
                self.push(&format!("{method} {path}"), bare, Expected::Untouched);
            }
            let mut body = Message::json("/api/qr", qr_body(&session, "2@x"));
            body.method = method.to_owned();
            self.push(&format!("{method} with a body"), body, Expected::Untouched);
        }
        for path in ["/api/qr?x=1", "/api/qr?", "/api/whatsapp/status?token=1&token=2"] {
            let query = Message::json(path, qr_body(&session, "2@x"));
            self.bypass(path, query, "query");
        }
        for path in ["/api/qr/", "/api//qr", "/api/qr/1", "/API/QR", "/api/%71r", "/api/qr;x", "/x/api/qr"] {
            let other = Message::json(path, qr_body(&session, "2@x"));
            self.push(path, other, Expected::Untouched);
        }
        let session = self.session();
        let absolute = Message::json("http://laravel.test/api/qr", qr_body(&session, "2@x"));
        self.queued("an absolute target", absolute, &session, "2@x");
    }

    fn over_http2(&mut self) {
        let session = self.session();
        self.queued_http2("a QR", Message::json("/api/qr", qr_body(&session, "2@x")), &session);
        let session = self.session();
        let trailers = Message::json("/api/qr", qr_body(&session, "2@x")).with_trailer("x-checksum", "1");
        self.queued_http2("trailers", trailers, &session);
        let session = self.session();
        let odd = Message::json("/api/qr", qr_body(&session, "2@x")).with("user-agent", b"\xff");
        self.queued_http2("a header that is no UTF-8", odd, &session);
        let session = self.session();
        let (value, body) = sized(&session, QUEUED_BYTES_MAX);
        let full = Message::json("/api/qr", body).with_trailer("x-checksum", "1");
        self.queued_http2("64 KiB and trailers", full, &session);
        if let Some(Case { expected: Expected::Queued(Some((_, last))), .. }) = self.cases.last_mut() {
            *last = value;
        }

        let message = |body: &[u8]| Message::json("/api/qr", body);
        let valid = qr_body("00000000-0000-4000-8000-00000000000c", "2@x");
        let token = message(valid.as_bytes()).with("authorization", b"\xff");
        let upload = sized("00000000-0000-4000-8000-00000000000c", UPLOAD_BYTES).1;
        let mut query = message(valid.as_bytes());
        query.target.extend_from_slice(b"?x=1");
        for (name, message, reason) in [
            ("not JSON", message(b"hello"), "syntax"),
            ("not JSON and trailers", message(b"hello").with_trailer("x-checksum", "1"), "syntax"),
            ("no body", message(b""), "empty"),
            ("no body but trailers", message(b"").with_trailer("x-checksum", "1"), "empty"),
            ("a token that is no UTF-8", token, "header_bytes"),
            ("2 MiB", message(upload.as_bytes()), "too_large"),
            ("2 MiB and trailers", message(upload.as_bytes()).with_trailer("x-checksum", "1"), "too_large"),
            ("a query string", query, "query"),
        ] {
            self.bypass(&format!("HTTP/2, {name}"), message, reason);
            self.cases.last_mut().expect("just pushed").http2 = true;
        }
        let get = Message::new("GET", "/api/qr").with("accept", "application/json");
        self.push("HTTP/2, GET", get, Expected::Untouched);
        self.cases.last_mut().expect("just pushed").http2 = true;
    }

    fn bypass(&mut self, name: &str, message: Message, reason: &'static str) {
        self.push(name, message, Expected::Bypass(reason));
    }

    fn queued(&mut self, name: &str, message: Message, session: &str, value: &str) {
        let update = (session.to_owned(), value.to_owned());
        self.push(name, message, Expected::Queued(Some(update)));
    }

    fn queued_http2(&mut self, name: &str, message: Message, session: &str) {
        self.queued(&format!("HTTP/2, {name}"), message, session, "2@x");
        self.cases.last_mut().expect("just pushed").http2 = true;
    }

    fn push(&mut self, name: &str, message: Message, expected: Expected) {
        let number = self.cases.len();
        self.cases.push(Case {
            name: name.to_owned(),
            message: message.with(CASE, number.to_string()),
            http2: false,
            expected,
        });
    }

    /// A session that no other case has.
    fn session(&mut self) -> String {
        self.sessions += 1;
        format!("10000000-0000-4000-8000-{:012}", self.sessions)
    }
}

fn qr_body(session: &str, qr: &str) -> String {
    format!(r#"{{"session_id":"{session}","qr":"{qr}"}}"#)
}

/// An update of exactly so many bytes, and its value.
fn sized(session: &str, bytes: usize) -> (String, String) {
    let value = format!("2@{}", "q".repeat(bytes - qr_body(session, "2@").len()));
    let body = qr_body(session, &value);
    assert_eq!(body.len(), bytes);
    (value, body)
}

/// A valid update but for its depth.
fn nested(session: &str, levels: usize) -> String {
    let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
    format!(r#"{{"session_id":"{session}","qr":"2@x","more":{open}{close}}}"#)
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}
