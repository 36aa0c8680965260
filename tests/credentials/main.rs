//! Callers with credentials: trusted once Laravel itself has accepted them, and never mixed.

use std::time::Duration;

use anyhow::Result;
use embudo::model::http::Kind;
use embudo::model::laravel::Tenants;
use embudo_tests::raw::{Answer, Message};
use embudo_tests::{Stack, qr_body, sessions, status_body, wait_until};
use serde_json::json;

const ONE: &str = "token-of-the-first";
const TWO: &str = "token-of-the-second";
const STRANGER: &str = "a-token-that-nobody-gave";

/// Two tenants, each with its own sessions.
struct Tenancy {
    stack: Stack,
    of_one: Vec<String>,
    of_two: Vec<String>,
}

impl Tenancy {
    async fn start(name: &str) -> Result<Self> {
        let (of_one, of_two) = (sessions(12), sessions(12));
        let mut tenants = Tenants::default();
        for session in &of_one {
            tenants.add(ONE, session);
        }
        for session in &of_two {
            tenants.add(TWO, session);
        }
        let stack = Stack::with(name, |options| options.laravel.config.tenants = tenants).await?;
        Ok(Self {
            stack,
            of_one,
            of_two,
        })
    }

    async fn state(&self, token: &str, session: &str, value: &str) -> Answer {
        let message = Message::json("/api/whatsapp/status", status_body(session, value));
        self.send(token, message).await
    }

    async fn qr(&self, token: &str, session: &str, value: &str) -> Answer {
        let message = Message::json("/api/qr", qr_body(session, value));
        self.send(token, message).await
    }

    async fn read(&self, token: &str, session: &str) -> Answer {
        let path = format!("/api/whatsapp/status/{session}");
        self.send(token, Message::new("GET", &path)).await
    }

    async fn send(&self, token: &str, message: Message) -> Answer {
        let message = message
            .with("accept", "application/json")
            .with("authorization", format!("Bearer {token}"));
        let answer = message.send(self.stack.envoy.listener).await;
        answer.expect("every request is answered")
    }

    /// Both have been accepted by Laravel once, on both routes.
    async fn introduced(&self) {
        for (token, session) in [(ONE, &self.of_one[0]), (TWO, &self.of_two[0])] {
            let state = self.state(token, session, "connecting").await;
            let qr = self.qr(token, session, "2@introduction").await;
            for answer in [state, qr] {
                assert_eq!(
                    (answer.status, outcome(&answer)),
                    (200, "passing; credential".into())
                );
            }
        }
    }

    /// Each item that Laravel has processed came under the credential of its own tenant.
    fn assert_never_mixed(&self) {
        for entry in self.stack.laravel.journal().entries() {
            let owner = match self.of_one.contains(&entry.session) {
                true => ONE,
                false => TWO,
            };
            assert_eq!(
                entry.credential.as_deref(),
                Some(format!("Bearer {owner}").as_str()),
                "an item arrives under its sender's credential"
            );
        }
    }
}

fn outcome(answer: &Answer) -> String {
    answer.header("x-embudo").unwrap_or_default()
}

#[tokio::test]
async fn a_credential_is_trusted_once_laravel_has_accepted_it_and_for_that_route() -> Result<()> {
    let it = Tenancy::start("learned").await?;
    let session = &it.of_one[0];

    let first = it.state(ONE, session, "connecting").await;
    let second = it.state(ONE, session, "active").await;
    let other_route = it.qr(ONE, session, "2@a").await;
    let again = it.state(ONE, session, "active").await;

    assert_eq!(outcome(&first), "passing; credential");
    assert_eq!(
        first.text(),
        r#"{"message":"Updated","success":true}"#,
        "Laravel's own answer"
    );
    assert_eq!(outcome(&second), "queued");
    // The other route's is busy while the state is under way, and passes once that is settled.
    assert!(
        ["passing; credential", "busy"].contains(&&*outcome(&other_route)),
        "{}",
        outcome(&other_route)
    );
    assert!(["duplicate", "queued"].contains(&&*outcome(&again)));
    it.stack.settled(Duration::from_secs(20)).await;
    it.assert_never_mixed();
    it.stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn two_tenants_never_share_a_batch() -> Result<()> {
    let it = Tenancy::start("apart").await?;
    it.introduced().await;

    for (mine, theirs) in it.of_one.iter().zip(&it.of_two).skip(1) {
        assert_eq!(outcome(&it.state(ONE, mine, "active").await), "queued");
        assert_eq!(outcome(&it.state(TWO, theirs, "active").await), "queued");
    }
    it.stack.settled(Duration::from_secs(20)).await;

    it.assert_never_mixed();
    let journal = it.stack.laravel.journal();
    let batched = journal.entries().iter().filter(|entry| entry.batched);
    assert!(batched.count() >= 22, "they did travel in batches");
    it.stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn a_401_ends_the_trust_and_what_it_refused_is_rejected() -> Result<()> {
    let it = Tenancy::start("revoked").await?;
    it.introduced().await;
    let session = &it.of_one[1];
    it.stack
        .laravel
        .with(|laravel| laravel.tenants_mut().revoke(ONE));

    let before = it.state(ONE, session, "active").await;
    assert_eq!(outcome(&before), "queued", "nobody knows yet");
    wait_until(
        "Laravel refuses the batch",
        Duration::from_secs(10),
        async || it.stack.ledger().await.rejected == 1,
    )
    .await;

    let after = it.state(ONE, session, "active").await;
    assert_eq!(
        (after.status, outcome(&after)),
        (401, "passing; credential".into()),
        "Laravel's own answer again"
    );
    let other = it.state(TWO, &it.of_two[1], "active").await;
    assert_eq!(
        outcome(&other),
        "queued",
        "the other tenant does not notice"
    );
    it.stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn a_stranger_neither_overwrites_nor_reads_anothers_state() -> Result<()> {
    let it = Tenancy::start("stranger").await?;
    it.introduced().await;
    let session = &it.of_one[1];
    assert_eq!(it.read(ONE, session).await.status, 200);
    it.state(ONE, session, "active").await;
    it.stack.settled(Duration::from_secs(20)).await;

    for token in [STRANGER, TWO] {
        let refused = match token {
            STRANGER => 401,
            _ => 403,
        };
        let read = it.read(token, session).await;
        assert_eq!(
            (read.status, outcome(&read)),
            (refused, "fresh".into()),
            "{token}"
        );
        let read = it.read(token, session).await;
        assert_eq!(read.status, refused, "and it stays so");
    }
    let written = it.state(STRANGER, session, "inactive").await;
    assert_eq!(written.status, 401);
    // The second tenant is known for the route: its item is taken in, and Laravel refuses it.
    it.state(TWO, session, "inactive").await;
    it.stack.settled(Duration::from_secs(20)).await;

    let kept = it.read(ONE, session).await;
    assert_eq!(kept.status, 200);
    let body: serde_json::Value = serde_json::from_slice(&kept.body)?;
    assert_eq!(body["estado_qr"], "active");
    assert_eq!(it.stack.state_of(session).as_deref(), Some("active"));
    it.stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn with_never_each_request_goes_to_laravel_and_with_always_none_has_to() -> Result<()> {
    for (trust, expected) in [("never", "passing; credential"), ("always", "queued")] {
        let config = json!({"credentials": {"trust": trust}});
        let stack = Stack::configured("trust", config).await?;
        let session = embudo_tests::session();
        for value in ["active", "connecting"] {
            let message = Message::json("/api/whatsapp/status", status_body(&session, value))
                .with("x-api-key", "k");
            let answer = message.send(stack.envoy.listener).await?;
            assert_eq!(outcome(&answer), expected, "{trust}");
        }
        let posts = stack.laravel.counts().of(Kind::PostStatus).requests;
        assert_eq!(posts, if trust == "never" { 2 } else { 0 });
        stack.finish().await;
    }
    Ok(())
}
