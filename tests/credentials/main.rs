//! Callers: queued once Laravel itself has accepted them, and their route, and never mixed.

use std::cell::Cell;
use std::time::Duration;

use anyhow::Result;
use embudo::model::http::Kind;
use embudo::model::laravel::{Fault, Misbehaviour, Tenants};
use embudo_tests::raw::{Answer, Message};
use embudo_tests::{Stack, qr_body, sessions, status_body, wait_until};
use serde_json::{Value, json};

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
        let stack = Stack::with(name, |options| {
            options.laravel.config.tenants = tenants;
            options.filter_config = unassumed();
        })
        .await?;
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

    /// Laravel has accepted both, and something on both routes.
    async fn introduced(&self) {
        let (one, two) = (&self.of_one[0], &self.of_two[0]);
        let answers = [
            self.state(ONE, one, "connecting").await,
            self.qr(ONE, one, "2@introduction").await,
            self.state(TWO, two, "connecting").await,
        ];
        for answer in answers {
            assert_eq!(
                (answer.status, outcome(&answer)),
                (200, "write-through; unproven".into())
            );
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

/// Whoever comes has to be accepted first.
fn unassumed() -> Value {
    json!({"assume": {"callers": false}})
}

fn outcome(answer: &Answer) -> String {
    answer.header("x-embudo").unwrap_or_default()
}

#[tokio::test]
async fn a_caller_is_queued_once_laravel_has_accepted_it_and_a_route_once_it_has_accepted_any()
-> Result<()> {
    let it = Tenancy::start("proven").await?;
    let (session, of_two) = (&it.of_one[0], &it.of_two[0]);

    let first = it.state(ONE, session, "connecting").await;
    let second = it.state(ONE, session, "active").await;
    let other_route = it.qr(ONE, session, "2@a").await;
    let again = it.state(ONE, session, "active").await;

    assert_eq!(outcome(&first), "write-through; unproven");
    assert_eq!(
        first.text(),
        r#"{"message":"Updated","success":true}"#,
        "Laravel's own answer"
    );
    assert_eq!(outcome(&second), "queued");
    // It is held while the state is under way, and goes on once that is settled.
    assert!(outcome(&other_route).ends_with("; unproven"));
    assert!(["duplicate", "queued"].contains(&&*outcome(&again)));
    // The routes are proven by anybody, the callers each by itself.
    let theirs = it.qr(TWO, of_two, "2@a").await;
    assert_eq!(outcome(&theirs), "write-through; unproven");
    let theirs = it.state(TWO, of_two, "connecting").await;
    assert_eq!(outcome(&theirs), "queued");
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
async fn a_401_to_an_item_alone_ends_the_proof_and_the_gateway_hears_the_next() -> Result<()> {
    let it = Tenancy::start("revoked").await?;
    it.introduced().await;
    let session = &it.of_one[1];
    it.stack
        .laravel
        .with(|laravel| laravel.tenants_mut().revoke(ONE));

    let before = it.state(ONE, session, "active").await;
    assert_eq!(outcome(&before), "queued", "nobody knows yet");
    // The batch is refused first, then its item alone, and that is about the caller.
    let accepted = Cell::new("active");
    wait_until(
        "the caller is no longer proven",
        Duration::from_secs(15),
        async || {
            for state in ["active", "open"] {
                let answer = it.state(ONE, session, state).await;
                if answer.status == 200 {
                    accepted.set(state);
                    return false;
                }
                assert!(outcome(&answer).starts_with("write-through"));
            }
            true
        },
    )
    .await;
    // Each worker looks again at its root's tick.
    tokio::time::sleep(Duration::from_millis(600)).await;

    let after = it.state(ONE, session, "active").await;
    assert_eq!(
        (after.status, outcome(&after)),
        (401, "write-through; unproven".into()),
        "Laravel's own answer again"
    );
    let other = it.state(TWO, &it.of_two[1], "active").await;
    assert_eq!(
        outcome(&other),
        "queued",
        "the other tenant does not notice"
    );
    // What was answered before is kept, until the token is known again.
    it.stack.laravel.with(|laravel| {
        for session in &it.of_one {
            laravel.tenants_mut().add(ONE, session);
        }
    });
    wait_until(
        "what was queued arrives",
        Duration::from_secs(30),
        async || it.stack.state_of(session).as_deref() == Some(accepted.get()),
    )
    .await;
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
    // The second tenant is proven: its item is taken in, and Laravel refuses it.
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
async fn where_callers_are_assumed_to_be_accepted_none_has_to_go_to_laravel_first() -> Result<()> {
    for (callers, expected) in [(false, "write-through; unproven"), (true, "queued")] {
        let config = json!({"assume": {"callers": callers}});
        let stack = Stack::configured("assumed", config).await?;
        let session = embudo_tests::session();
        {
            let message = Message::json("/api/whatsapp/status", status_body(&session, "active"))
                .with("x-api-key", "k");
            let answer = message.send(stack.envoy.listener).await?;
            assert_eq!(outcome(&answer), expected, "{callers}");
        }
        let posts = stack.laravel.counts().of(Kind::PostStatus).requests;
        assert_eq!(posts == 0, callers);
        stack.finish().await;
    }
    Ok(())
}

#[tokio::test]
async fn what_says_failure_proves_nobody() -> Result<()> {
    let stack = Stack::configured("failure", unassumed()).await?;
    let says = Misbehaviour::Status {
        code: 200,
        headers: vec![("content-type".into(), "application/json".into())],
        body: r#"{"success":false,"message":"try again"}"#.into(),
        processed: false,
    };
    stack
        .laravel
        .set_faults(vec![Fault::always(says).on(Kind::PostStatus)]);
    let session = embudo_tests::session();
    for n in 0..200 {
        let answer = stack.post_status(&session, &format!("state-{n}")).await;
        assert_eq!(
            (answer.status, &*answer.outcome),
            (200, "write-through; unproven")
        );
    }
    stack.laravel.set_faults(Vec::new());
    let first = stack.post_status(&session, "connecting").await;
    let second = stack.post_status(&session, "active").await;
    assert_eq!(first.outcome, "write-through; unproven");
    assert_eq!(second.outcome, "queued");
    stack.settled(Duration::from_secs(20)).await;
    stack.finish().await;
    Ok(())
}

#[tokio::test]
async fn callers_that_come_once_push_nobody_out_that_comes_again() -> Result<()> {
    let stack = Stack::configured("rotating", unassumed()).await?;
    let post = async |name: &str, value: String, session: &str, state: String| {
        let message = Message::json("/api/whatsapp/status", status_body(session, &state));
        let answer = message.with(name, value).send(stack.envoy.listener).await;
        outcome(&answer.expect("every request is answered"))
    };
    let all: Vec<(String, String)> = (0..100)
        .map(|n| (format!("Bearer tenant-{n}"), embudo_tests::session()))
        .collect();
    // Few have been accepted once and not again at any time: there are places for a hundred of them, not for more in
    // one key of the store.
    for some in all.chunks(20) {
        for state in ["connecting", "active"] {
            for (token, session) in some {
                post("authorization", token.clone(), session, state.into()).await;
            }
            stack.settled(Duration::from_secs(20)).await;
        }
    }
    let tab = embudo_tests::session();
    for n in 0..300 {
        let told = post(
            "cookie",
            format!("laravel_session={n}"),
            &tab,
            format!("state-{n}"),
        )
        .await;
        assert_eq!(told, "write-through; unproven", "each is a stranger");
    }
    for (token, session) in &all {
        let told = post("authorization", token.clone(), session, "inactive".into()).await;
        assert_eq!(told, "queued", "{token}");
    }
    stack.settled(Duration::from_secs(20)).await;
    stack.finish().await;
    Ok(())
}
