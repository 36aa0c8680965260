//! The floor: a filter that waits for a request's body, reads the path and the body, and answers as Embudo
//! answers a duplicate. It parses, compares, stores and counts nothing, so whatever does this job in Envoy costs
//! at least this. `embudo bench` measures how much more Embudo costs.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

mod start {
    use super::Root;

    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|_| Box::new(Root));
    }}
}

/// The answer, of the same length as Embudo's, and with the same headers.
const SKIPPED: &[u8] = br#"{"success":true,"skipped":true,"reason":"duplicate"}"#;

struct Root;

#[derive(Default)]
struct Stream {
    path: Vec<u8>,
}

impl Context for Root {}

impl RootContext for Root {
    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::<Stream>::default())
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.path = self
            .get_http_request_header_bytes(":path")
            .unwrap_or_default();
        Action::Pause
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        if !end_of_stream {
            return Action::Pause;
        }
        let body = self.get_http_request_body(0, body_size).unwrap_or_default();
        // Whatever was read must be looked at, or the compiler might not read it.
        let status = match (std::hint::black_box(&self.path), body.is_empty()) {
            (path, false) if !path.is_empty() => 200,
            _ => 400,
        };
        let headers = vec![
            ("content-type", "application/json"),
            ("x-embudo", "duplicate"),
        ];
        self.send_http_response(status, headers, Some(SKIPPED));
        Action::Pause
    }
}
