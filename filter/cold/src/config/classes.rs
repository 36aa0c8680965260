//! What each request header is to Embudo: what Laravel could tell apart by it, Embudo tells apart.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::fields::Fields;
use super::parse::is_header_name;

/// What a header means for where an update goes and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The connection's, the router's or Embudo's own: read by name where it matters, and never carried.
    Framing,
    /// Tells nobody apart. A batch has its own, a single carries those of its newest update.
    Neutral,
    /// As [`Class::Neutral`] to an update; but a read with another value may have another answer.
    Varying,
    /// Carried, and part of the partition: Laravel may redirect by scheme or allow by address. Nobody's identity.
    Parting,
    /// Part of the session's name and of the caller, carried.
    Tenant,
    /// Part of the caller, carried, never printed.
    Credential,
    /// What a browser says of its page. Beside a cookie, which it may guard, as [`Class::Credential`]; without one as
    /// [`Class::Varying`].
    Page,
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

/// Whole names, the short ones first, so that they are found by halving: most steps look at a length only.
const NAMES: [(&str, Class); 80] = [
    ("b3", Class::Neutral),
    ("te", Class::Framing),
    ("dnt", Class::Varying),
    ("via", Class::Varying),
    ("date", Class::Neutral),
    ("host", Class::Framing),
    ("range", Class::Framing),
    ("apikey", Class::Credential),
    ("cf-ray", Class::Neutral),
    ("cookie", Class::Credential),
    ("digest", Class::Signature),
    ("expect", Class::Framing),
    ("origin", Class::Page),
    ("pragma", Class::Neutral),
    ("baggage", Class::Neutral),
    ("referer", Class::Page),
    ("rndr-id", Class::Neutral),
    ("trailer", Class::Framing),
    ("upgrade", Class::Framing),
    ("cdn-loop", Class::Varying),
    ("newrelic", Class::Neutral),
    ("priority", Class::Neutral),
    ("cf-ew-via", Class::Varying),
    ("cf-worker", Class::Varying),
    ("forwarded", Class::Parting),
    ("signature", Class::Signature),
    ("x-api-key", Class::Credential),
    ("x-arr-ssl", Class::Varying),
    ("x-real-ip", Class::Parting),
    ("cf-visitor", Class::Varying),
    ("connection", Class::Framing),
    ("keep-alive", Class::Framing),
    ("tracestate", Class::Neutral),
    ("user-agent", Class::Neutral),
    ("webhook-id", Class::Neutral),
    ("x-batch-id", Class::Framing),
    ("content-md5", Class::Signature),
    ("repr-digest", Class::Signature),
    ("x-amz-cf-id", Class::Neutral),
    ("x-azure-ref", Class::Neutral),
    ("x-dynatrace", Class::Neutral),
    ("x-vercel-id", Class::Neutral),
    ("cf-ipcountry", Class::Varying),
    ("content-type", Class::Parting),
    ("x-account-id", Class::Tenant),
    ("x-arr-log-id", Class::Neutral),
    ("x-batch-size", Class::Framing),
    ("x-csrf-token", Class::Page),
    ("x-xsrf-token", Class::Page),
    ("authorization", Class::Credential),
    ("cache-control", Class::Neutral),
    ("x-queue-start", Class::Neutral),
    ("content-digest", Class::Signature),
    ("content-length", Class::Framing),
    ("grpc-trace-bin", Class::Neutral),
    ("http2-settings", Class::Framing),
    ("true-client-ip", Class::Varying),
    // It would ask for an answer that the dispatcher could not read.
    ("accept-encoding", Class::Framing),
    ("ali-cdn-real-ip", Class::Varying),
    ("idempotency-key", Class::Neutral),
    ("x-forwarded-for", Class::Parting),
    ("x-original-host", Class::Tenant),
    ("x-request-start", Class::Neutral),
    ("cf-connecting-ip", Class::Varying),
    ("content-encoding", Class::Framing),
    ("proxy-connection", Class::Framing),
    ("x-amzn-requestid", Class::Neutral),
    ("x-appgw-trace-id", Class::Neutral),
    ("x-arr-clientcert", Class::Credential),
    ("x-forwarded-host", Class::Tenant),
    ("x-forwarded-port", Class::Parting),
    ("x-requested-with", Class::Varying),
    ("transfer-encoding", Class::Framing),
    ("webhook-timestamp", Class::Neutral),
    ("x-forwarded-proto", Class::Parting),
    ("x-forwarded-prefix", Class::Tenant),
    ("x-cloud-trace-context", Class::Neutral),
    ("x-http-method-override", Class::Override),
    ("x-forwarded-client-cert", Class::Credential),
    ("x-original-forwarded-for", Class::Varying),
];

/// Beginnings.
const BEGINNINGS: [(&str, Class); 17] = [
    (":", Class::Framing),
    // The router obeys them.
    ("x-envoy-", Class::Framing),
    // Embudo's own; nobody else may say which item this is.
    ("x-embudo-", Class::Framing),
    ("if-", Class::Framing),
    ("accept", Class::Varying),
    ("sec-", Class::Varying),
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
    ("-client-ip", Class::Varying),
    ("-clientip", Class::Varying),
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

fn in_order(one: &[u8], other: &[u8]) -> Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

fn built_in(name: &[u8]) -> Class {
    let known = NAMES.binary_search_by(|(known, _)| in_order(known.as_bytes(), name));
    if let Some((_, class)) = known.ok().and_then(|at| NAMES.get(at)) {
        return *class;
    }
    // At every header of a read: one byte before a call.
    let begins = |text: &&str| {
        let text = text.as_bytes();
        name.first() == text.first() && name.starts_with(text)
    };
    let begun = BEGINNINGS.iter().find(|(text, _)| begins(text));
    let ended = || {
        let ends = |(text, _): &&(&str, Class)| {
            let text = text.as_bytes();
            name.last() == text.last() && name.ends_with(text)
        };
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
        assert!(NAMES.is_sorted_by(|(a, _), (b, _)| in_order(a.as_bytes(), b.as_bytes()).is_lt()));
    }

    #[test]
    fn each_header_has_the_class_of_the_design() {
        for (class, names) in [
            (
                Class::Varying,
                "accept accept-language x-requested-with sec-fetch-mode sec-ch-ua dnt via cdn-loop cf-connecting-ip \
                 true-client-ip fastly-client-ip x-real-clientip x-original-forwarded-for",
            ),
            (
                Class::Neutral,
                "user-agent date cache-control pragma priority cf-ray x-ms-request-id x-ms-client-request-id \
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
                 x-ms-token-aad-id-token",
            ),
            (Class::Page, "origin referer x-csrf-token x-xsrf-token"),
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
                    "acceptance-free" => Class::Varying,
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
