//! What each request header is to Embudo: what Laravel could tell apart by it, Embudo tells apart.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::fields::Fields;
use super::parse::is_header_name;

/// What a header means for where an update goes and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The connection's, the router's or Embudo's own: read by name where it matters, and never carried.
    Framing,
    /// Tells nobody apart. A batch has its own, a single carries those of its newest update.
    Neutral,
    /// Carried, and part of the partition: Laravel may redirect by scheme or allow by address. Nobody's identity.
    Parting,
    /// Part of the session's name and of the caller, carried.
    Tenant,
    /// Part of the caller, carried, never printed.
    Credential,
    /// Signs the body: the request bypasses.
    Signature,
    /// Makes something else of the request in Laravel: it bypasses.
    Override,
    /// Every other header: part of the caller, carried.
    Identity,
    /// Carried with the session's newest value. Parts no callers, but batches.
    Rotating,
}

/// The classes: the built-in ones, and what an operator says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    own: Vec<(Pattern, Class)>,
}

/// A header's name, lower case; `*` stands for anything at its beginning, its end, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// The keys of `headers`, in the order in which they are documented.
const KEYS: [(&str, Class); 5] = [
    ("neutral", Class::Neutral),
    ("parting", Class::Parting),
    ("tenant", Class::Tenant),
    ("credential", Class::Credential),
    ("rotating", Class::Rotating),
];

/// Whole names, in order, so that they are found by halving.
const NAMES: [(&str, Class); 80] = [
    // It would ask for an answer that the dispatcher could not read.
    ("accept-encoding", Class::Framing),
    ("ali-cdn-real-ip", Class::Neutral),
    ("apikey", Class::Credential),
    ("authorization", Class::Credential),
    ("b3", Class::Neutral),
    ("baggage", Class::Neutral),
    ("cache-control", Class::Neutral),
    ("cdn-loop", Class::Neutral),
    ("cf-connecting-ip", Class::Neutral),
    ("cf-ew-via", Class::Neutral),
    ("cf-ipcountry", Class::Neutral),
    ("cf-ray", Class::Neutral),
    ("cf-visitor", Class::Neutral),
    ("cf-worker", Class::Neutral),
    ("connection", Class::Framing),
    ("content-digest", Class::Signature),
    ("content-encoding", Class::Framing),
    ("content-length", Class::Framing),
    ("content-md5", Class::Signature),
    ("content-type", Class::Parting),
    ("cookie", Class::Credential),
    ("date", Class::Neutral),
    ("digest", Class::Signature),
    ("dnt", Class::Neutral),
    ("expect", Class::Framing),
    ("forwarded", Class::Parting),
    ("grpc-trace-bin", Class::Neutral),
    ("host", Class::Framing),
    ("http2-settings", Class::Framing),
    ("idempotency-key", Class::Neutral),
    ("keep-alive", Class::Framing),
    ("newrelic", Class::Neutral),
    ("origin", Class::Credential),
    ("pragma", Class::Neutral),
    ("priority", Class::Neutral),
    ("proxy-connection", Class::Framing),
    ("range", Class::Framing),
    ("referer", Class::Credential),
    ("repr-digest", Class::Signature),
    ("rndr-id", Class::Neutral),
    ("signature", Class::Signature),
    ("te", Class::Framing),
    ("tracestate", Class::Neutral),
    ("trailer", Class::Framing),
    ("transfer-encoding", Class::Framing),
    ("true-client-ip", Class::Neutral),
    ("upgrade", Class::Framing),
    ("user-agent", Class::Neutral),
    ("via", Class::Neutral),
    ("webhook-id", Class::Neutral),
    ("webhook-timestamp", Class::Neutral),
    ("x-account-id", Class::Tenant),
    ("x-amz-cf-id", Class::Neutral),
    ("x-amzn-requestid", Class::Neutral),
    ("x-api-key", Class::Credential),
    ("x-appgw-trace-id", Class::Neutral),
    ("x-arr-clientcert", Class::Credential),
    ("x-arr-log-id", Class::Neutral),
    ("x-arr-ssl", Class::Neutral),
    ("x-azure-ref", Class::Neutral),
    ("x-batch-id", Class::Framing),
    ("x-batch-size", Class::Framing),
    ("x-cloud-trace-context", Class::Neutral),
    ("x-csrf-token", Class::Credential),
    ("x-dynatrace", Class::Neutral),
    ("x-forwarded-client-cert", Class::Credential),
    ("x-forwarded-for", Class::Parting),
    ("x-forwarded-host", Class::Tenant),
    ("x-forwarded-port", Class::Parting),
    ("x-forwarded-prefix", Class::Tenant),
    ("x-forwarded-proto", Class::Parting),
    ("x-http-method-override", Class::Override),
    ("x-original-forwarded-for", Class::Neutral),
    ("x-original-host", Class::Tenant),
    ("x-queue-start", Class::Neutral),
    ("x-real-ip", Class::Parting),
    ("x-request-start", Class::Neutral),
    ("x-requested-with", Class::Neutral),
    ("x-vercel-id", Class::Neutral),
    ("x-xsrf-token", Class::Credential),
];

/// Beginnings.
const BEGINNINGS: [(&str, Class); 17] = [
    (":", Class::Framing),
    // The router obeys them.
    ("x-envoy-", Class::Framing),
    // Embudo's own; nobody else may say which item this is.
    ("x-embudo-", Class::Framing),
    ("if-", Class::Framing),
    ("accept", Class::Neutral),
    ("sec-", Class::Neutral),
    ("x-b3-", Class::Neutral),
    ("sentry-", Class::Neutral),
    ("x-datadog-", Class::Neutral),
    ("x-newrelic-", Class::Neutral),
    ("x-instana-", Class::Neutral),
    ("x-ot-", Class::Neutral),
    ("eagleeye-", Class::Neutral),
    ("x-client-cert", Class::Credential),
    ("cf-access-", Class::Credential),
    ("x-ms-client-principal", Class::Credential),
    ("x-ms-token-", Class::Credential),
];

/// Ends.
const ENDS: [(&str, Class); 11] = [
    ("-request-id", Class::Neutral),
    ("-correlation-id", Class::Neutral),
    ("-trace-id", Class::Neutral),
    ("traceparent", Class::Neutral),
    ("-client-ip", Class::Neutral),
    ("-clientip", Class::Neutral),
    ("-webhook-timestamp", Class::Neutral),
    ("-signature", Class::Signature),
    ("-signature-256", Class::Signature),
    ("-hmac", Class::Signature),
    ("-hmac-sha256", Class::Signature),
];

/// Beginnings that are looked at last: a tenant's request id is a request id.
const TENANTS: [&str; 2] = ["x-tenant", "x-organization"];

/// The operator's lists.
pub(super) fn classes(mut fields: Fields<'_>) -> Classes {
    let mut own: Vec<(Pattern, Class)> = Vec::new();
    for (key, class) in KEYS {
        for (index, text) in fields
            .texts(key)
            .unwrap_or_default()
            .into_iter()
            .enumerate()
        {
            let place = format!("{key}/{index}");
            match Pattern::parse(&text) {
                Err(message) => fields.report(&place, message),
                Ok(pattern) => {
                    if own.iter().any(|(known, _)| *known == pattern) {
                        fields.report(&place, format!("\"{text}\" is in a list already"));
                    }
                    own.push((pattern, class));
                }
            }
        }
    }
    fields.end();
    Classes { own }
}

// === impl Classes ===

impl Classes {
    /// The class of a header. Of the operator's patterns that fit, the longest one counts.
    #[must_use]
    pub fn of(&self, name: &[u8]) -> Class {
        let built_in = built_in(name);
        if built_in == Class::Framing {
            return Class::Framing;
        }
        let own = self.own.iter().filter(|(pattern, _)| pattern.fits(name));
        own.max_by_key(|(pattern, _)| pattern.rank())
            .map_or(built_in, |(_, class)| *class)
    }

    /// The operator's own names of a class, for whoever shows a configuration.
    pub fn own(&self) -> impl Iterator<Item = (&'static str, Vec<&str>)> {
        KEYS.into_iter().map(|(key, class)| {
            let of_class = self.own.iter().filter(move |(_, known)| *known == class);
            (key, of_class.map(|(pattern, _)| &*pattern.0).collect())
        })
    }

    /// Whether any header is said to rotate.
    #[must_use]
    pub fn has_rotating(&self) -> bool {
        self.own.iter().any(|(_, class)| *class == Class::Rotating)
    }
}

fn built_in(name: &[u8]) -> Class {
    let known = NAMES.binary_search_by(|(known, _)| known.as_bytes().cmp(name));
    if let Some((_, class)) = known.ok().and_then(|at| NAMES.get(at)) {
        return *class;
    }
    let begins = |text: &&str| name.starts_with(text.as_bytes());
    let begun = BEGINNINGS.iter().find(|(text, _)| begins(text));
    let ended = || {
        let ends = |(text, _): &&(&str, Class)| name.ends_with(text.as_bytes());
        ENDS.iter().find(ends)
    };
    match begun.or_else(ended) {
        Some((_, class)) => *class,
        None if TENANTS.iter().any(begins) => Class::Tenant,
        None => Class::Identity,
    }
}

// === impl Pattern ===

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix('*').unwrap_or(text);
        let name = name.strip_suffix('*').unwrap_or(name);
        let lower = text.to_ascii_lowercase();
        if !is_header_name(&name.to_ascii_lowercase()) {
            return Err(format!(
                "\"{text}\" is not a header name, with at most one '*' at its beginning and one at its end"
            ));
        }
        match built_in(name.to_ascii_lowercase().as_bytes()) {
            Class::Framing => Err(format!(
                "\"{text}\" belongs to the connection or to Envoy's router and is never carried"
            )),
            _ => Ok(Self(lower.to_owned())),
        }
    }

    fn fits(&self, name: &[u8]) -> bool {
        let pattern = self.0.as_bytes();
        match (pattern.strip_prefix(b"*"), pattern.strip_suffix(b"*")) {
            (None, None) => name == pattern,
            (Some(end), None) => name.ends_with(end),
            (None, Some(beginning)) => name.starts_with(beginning),
            (Some(rest), Some(_)) => {
                let part = rest.strip_suffix(b"*").unwrap_or(rest);
                name.windows(part.len().max(1)).any(|found| found == part)
            }
        }
    }

    /// A whole name before any pattern, a longer pattern before a shorter one.
    fn rank(&self) -> (bool, usize) {
        (!self.0.contains('*'), self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str) -> Class {
        Classes::default().of(name.as_bytes())
    }

    #[test]
    fn the_names_are_in_order() {
        assert!(NAMES.is_sorted_by(|(a, _), (b, _)| a < b));
    }

    #[test]
    fn each_header_has_the_class_of_the_design() {
        for (class, names) in [
            (
                Class::Neutral,
                "accept accept-language user-agent date cache-control pragma x-requested-with sec-fetch-mode \
                 sec-ch-ua dnt priority via cdn-loop cf-ray cf-connecting-ip true-client-ip fastly-client-ip \
                 x-real-clientip x-original-forwarded-for x-ms-request-id x-ms-client-request-id \
                 traceparent elastic-apm-traceparent tracestate b3 x-b3-traceid x-request-id \
                 x-webhook-request-id x-correlation-id x-trace-id sentry-trace x-datadog-parent-id \
                 x-webhook-timestamp idempotency-key webhook-id webhook-timestamp x-tenant-request-id",
            ),
            (
                Class::Parting,
                "content-type x-forwarded-proto x-forwarded-port x-forwarded-for x-real-ip forwarded",
            ),
            (
                Class::Tenant,
                "x-tenant x-tenant-id x-organization x-organization-id x-account-id x-forwarded-host \
                 x-forwarded-prefix x-original-host",
            ),
            (
                Class::Credential,
                "authorization cookie x-api-key apikey x-forwarded-client-cert x-client-cert \
                 x-client-cert-subject x-arr-clientcert cf-access-jwt-assertion x-ms-client-principal-id \
                 x-ms-token-aad-id-token origin referer x-csrf-token x-xsrf-token",
            ),
            (
                Class::Signature,
                "signature x-webhook-signature x-hub-signature x-hub-signature-256 x-webhook-hmac \
                 x-shopify-hmac-sha256 content-digest digest content-md5 repr-digest",
            ),
            (Class::Override, "x-http-method-override"),
            (
                Class::Identity,
                "x-webhook-secret x-client resource-owner x-quepasa-wid key x-webhook-hmac-algorithm \
                 x-webhook-event acceptance-free",
            ),
            (
                Class::Framing,
                ":method connection te host content-length accept-encoding expect range if-match \
                 x-envoy-upstream-rq-timeout-ms x-embudo-item x-batch-id",
            ),
        ] {
            for name in names.split_whitespace() {
                // Whatever begins like it is one of them.
                let wanted = match name {
                    "acceptance-free" => Class::Neutral,
                    _ => class,
                };
                assert_eq!(self::class(name), wanted, "{name}");
            }
        }
    }

    fn own(json: &str) -> Classes {
        let json = format!(r#"{{"headers":{json}}}"#);
        super::super::Config::parse(json.as_bytes())
            .unwrap()
            .headers
    }

    #[test]
    fn an_operators_list_takes_names_out_of_the_other_classes() {
        let classes = own(
            r#"{"neutral":["X-Delivery-*","*-hmac"],"credential":["x-delivery-key"],
            "tenant":["*client*"],"rotating":["authorization"],"parting":["cookie"]}"#,
        );
        for (name, class) in [
            ("x-delivery-id", Class::Neutral),
            ("x-delivery-key", Class::Credential),
            ("x-webhook-hmac", Class::Neutral),
            ("x-client", Class::Tenant),
            ("authorization", Class::Rotating),
            ("cookie", Class::Parting),
            ("x-webhook-signature", Class::Signature),
            ("x-other", Class::Identity),
            ("connection", Class::Framing),
        ] {
            assert_eq!(classes.of(name.as_bytes()), class, "{name}");
        }
        assert!(classes.has_rotating() && !Classes::default().has_rotating());
    }

    #[test]
    fn a_list_is_refused_at_its_place() {
        let problems = |json: &str| -> Vec<String> {
            use alloc::string::ToString;
            let json = format!(r#"{{"headers":{json}}}"#);
            match super::super::Config::parse(json.as_bytes()) {
                Ok(_) => Vec::new(),
                Err(problems) => problems.iter().map(ToString::to_string).collect(),
            }
        };
        let said = problems(
            r#"{"neutral":["x y","x-envoy-retry-on","*","a*b"],"tenant":["x-a"],"parting":["x-a"]}"#,
        );
        let places: Vec<&str> = said
            .iter()
            .filter_map(|line| line.split(": ").next())
            .collect();
        assert_eq!(
            places,
            [
                "/headers/neutral/0",
                "/headers/neutral/1",
                "/headers/neutral/2",
                "/headers/neutral/3",
                "/headers/tenant/0"
            ]
        );
    }
}
