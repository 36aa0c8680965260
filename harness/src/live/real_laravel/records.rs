//! What a real Laravel has kept: its rows, its updates, and nginx's log of requests.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use rusqlite::{Connection, OpenFlags};

use super::PANEL;
use crate::model::http::{Kind, Route};
use crate::model::laravel::{Entry, kind};
use crate::model::order::Row;
use crate::model::reads::{Word, Words};

/// The table `accounts`, by session.
pub type Rows = BTreeMap<String, Row>;

/// Before the application's routes.
const PREFIX: &str = "/api";

/// How long Laravel may be in the middle of a write.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// Translates the time of day, which Laravel writes down, into ms since an instant of this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    zero: Duration,
}

// === impl Clock ===

impl Clock {
    pub(super) fn new(epoch: Instant) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let zero = unix.unwrap_or_default().saturating_sub(epoch.elapsed());
        Self { zero }
    }

    /// Rounded up: an effect never seems to come before what caused it.
    fn ms(self, unix: Duration) -> u64 {
        let micros = unix.saturating_sub(self.zero).as_micros();
        u64::try_from(micros.div_ceil(1000)).unwrap_or(u64::MAX)
    }
}

fn open(database: &Path) -> Result<Connection> {
    // Never creating: a database that is not there would be an empty one.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let opened = Connection::open_with_flags(database, flags)
        .and_then(|connection| connection.busy_timeout(BUSY_MAX).map(|()| connection));
    opened.with_context(|| format!("cannot open {}", database.display()))
}

/// Makes accounts; they have been told `pending` before, as in the stand-in.
pub(super) fn add_accounts(database: &Path, sessions: &[String]) -> Result<()> {
    let mut connection = open(database)?;
    let transaction = connection.transaction()?;
    for session in sessions {
        transaction.execute("INSERT INTO accounts (session_id) VALUES (?1)", [session])?;
    }
    transaction.commit().context("cannot make the accounts")
}

pub(super) fn rows(database: &Path) -> Result<Rows> {
    let connection = open(database)?;
    let mut select = connection.prepare("SELECT session_id, estado_qr, qr FROM accounts")?;
    let rows = select.query_map([], |row| {
        let (state, qr) = (row.get(1)?, row.get(2)?);
        Ok((row.get(0)?, Row { state, qr }))
    })?;
    rows.collect::<Result<_, _>>()
        .context("cannot read the accounts")
}

/// What of a session a panel shows beside its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// Whose.
    pub session: String,
    /// `estado_qr`.
    pub state: String,
    /// The phone that it is paired with.
    pub phone: Option<String>,
    /// Why it is not.
    pub reason: Option<String>,
}

pub(super) fn details(database: &Path) -> Result<Vec<Details>> {
    let connection = open(database)?;
    let mut select =
        connection.prepare("SELECT session_id, estado_qr, phone, reason FROM accounts")?;
    let rows = select.query_map([], |row| {
        Ok(Details {
            session: row.get(0)?,
            state: row.get(1)?,
            phone: row.get(2)?,
            reason: row.get(3)?,
        })
    })?;
    rows.collect::<Result<_, _>>()
        .context("cannot read the accounts")
}

/// What Laravel has said of each session, from when on.
pub(super) fn words(database: &Path, clock: Clock) -> Result<Words> {
    let connection = open(database)?;
    let mut select = connection
        .prepare("SELECT session_id, route, value, says, at_ms FROM updates ORDER BY id")?;
    let rows = select.query_map([], |row| {
        let route: String = row.get(1)?;
        let told: String = row.get(2)?;
        let word = Word {
            at_ms: clock.ms(Duration::from_millis(row.get(4)?)),
            says: row.get(3)?,
            told: (route == "status").then_some(told),
            is_users: route == "stop",
        };
        Ok((row.get::<_, String>(0)?, word))
    })?;
    let mut words = Words::new();
    for row in rows {
        let (session, word) = row.context("cannot read the updates")?;
        words.entry(session).or_default().push(word);
    }
    Ok(words)
}

/// The updates that took effect, in order.
pub(super) fn updates(database: &Path, clock: Clock) -> Result<Vec<Entry>> {
    let connection = open(database)?;
    let mut select = connection.prepare(
        "SELECT session_id, route, value, timestamp, batched, started_ms, at_ms,
                (SELECT MIN(id) FROM updates first WHERE first.call = updates.call)
         FROM updates WHERE route IN ('qr', 'status') ORDER BY id",
    )?;
    let entries = select.query_map([], |row| {
        let ms = |column: usize| {
            row.get(column)
                .map(|ms| clock.ms(Duration::from_millis(ms)))
        };
        let route: String = row.get(1)?;
        Ok(Entry {
            seq: 0,
            call: row.get::<_, Option<u64>>(7)?.unwrap_or_default(),
            session: row.get(0)?,
            route: match route.as_str() {
                "qr" => Route::Qr,
                _ => Route::Status,
            },
            value: row.get(2)?,
            timestamp: row.get(3)?,
            batched: row.get(4)?,
            stored: true,
            credential: None,
            arrived: std::sync::Arc::default(),
            started_ms: ms(5)?,
            finished_ms: ms(6)?,
        })
    })?;
    entries
        .collect::<Result<_, _>>()
        .context("cannot read the updates")
}

/// The requests that arrived: when, what, how long its body, and the status of the answer.
pub(super) fn requests(log: &Path, clock: Clock) -> Result<Vec<(u64, Kind, usize, u16)>> {
    let text = fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let request = |line: &str| {
        let mut words = line.split(' ');
        let at = Duration::try_from_secs_f64(words.next()?.parse().ok()?).ok()?;
        let kind = kind(PREFIX, words.next()?, words.next()?);
        let status = words.next()?.parse().ok()?;
        // `-` where there was no body.
        let bytes = words.next()?.parse().unwrap_or(0);
        Some((clock.ms(at), kind, bytes, status))
    };
    let read = |line| request(line).with_context(|| format!("nginx wrote {line:?}"));
    // What a panel's users do is not the gateway's.
    let is_users = |line: &&str| line.contains(&format!(" {PANEL}"));
    text.lines()
        .filter(|line| !is_users(line))
        .map(read)
        .collect()
}

pub(super) fn reset(database: &Path, log: &Path) -> Result<()> {
    let connection = open(database)?;
    // What it says of a session when all is forgotten is what it says until the next update.
    let last = "SELECT MAX(id) FROM updates GROUP BY session_id";
    connection.execute(&format!("DELETE FROM updates WHERE id NOT IN ({last})"), [])?;
    connection.execute("UPDATE updates SET route = 'before'", [])?;
    // nginx appends, so it goes on at the beginning.
    File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    Ok(())
}
