//! Laravel is away for a minute, and the gateway does not notice when it asks.

use std::time::{Duration, Instant};

use super::{BOUND, Result, Stack, outcome, qr, read, state};

const SESSIONS: usize = 50;

/// Longer than any gateway's patience with one request, and than every timeout of Embudo's.
const AWAY: Duration = Duration::from_secs(60);

#[tokio::test]
async fn no_read_of_a_known_session_fails_while_laravel_is_down_for_60_s() -> Result<()> {
    let mut stack = Stack::start("reads-down").await?;
    let sessions = embudo_tests::sessions(SESSIONS);
    let mut states = vec!["inactive"; SESSIONS];
    for session in &sessions {
        stack.post_status(session, "inactive").await;
    }
    stack.settled(BOUND).await;
    for session in &sessions {
        assert_eq!(read(&stack, session).await.status, 200);
    }

    stack.laravel.down().await;
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    let (mut round, mut reads) = (0_usize, 0_usize);
    while began.elapsed() < AWAY {
        for (index, session) in sessions.iter().enumerate() {
            let value = match (round + index) % 3 {
                // What it sets is for Laravel to say.
                0 => {
                    stack
                        .post_qr(session, &qr(format!("{round}-{index}")))
                        .await;
                    states[index]
                }
                1 => {
                    stack.post_status(session, "active").await;
                    "active"
                }
                _ => {
                    stack.post_status(session, "inactive").await;
                    "inactive"
                }
            };
            states[index] = value;
            let asked = Instant::now();
            let answer = read(&stack, session).await;
            slowest = slowest.max(asked.elapsed());
            reads += 1;
            // Nothing was seen that would make it believed; but it is better than no answer.
            assert_eq!((answer.status, outcome(&answer)), (200, "stale".into()));
            assert_eq!(state(&answer), value, "what was accepted last");
        }
        round += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(reads > SESSIONS * 10, "there were reads: {reads}");
    // Generous: two cores are shared. What it shows is that nobody waits for Laravel.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");

    stack.laravel.up().await?;
    stack.settled(Duration::from_secs(120)).await;
    for session in &sessions {
        let told = state(&read(&stack, session).await);
        assert_eq!(
            stack.state_of(session),
            Some(told),
            "Laravel ends on what was told"
        );
    }
    stack.finish().await;
    Ok(())
}
