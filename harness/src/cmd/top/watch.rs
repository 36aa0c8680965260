//! The terminal: drawn once a second, given back whatever happens.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use embudo::live::Admin;
use ratatui::DefaultTerminal;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::Position;
use ratatui::style::{Color, Style};
use ratatui::text::Line;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::figures::{Figures, Look};
use super::{TopArguments, look, view};

/// How often the page is read.
const EVERY: Duration = Duration::from_secs(1);

/// Rates are over this, or since the start.
const WINDOW: Duration = Duration::from_secs(60);

/// How long a beat that does not move is no sign of death: a leader beats every 500 ms at least, and
/// its lease lives 3 s.
const BEAT_MAX: Duration = Duration::from_secs(3);

/// How long the thread that reads keys may take to notice that nobody listens any more.
const KEY_POLL: Duration = Duration::from_millis(200);

/// What the terminal shows.
#[derive(Debug)]
pub(super) struct Watch {
    admin: String,
    cluster: String,
    /// The looks of the last [`WINDOW`], oldest first; never empty.
    looks: VecDeque<Look>,
    /// Why the last look failed, and how many have failed since the last one that did not.
    lost: Option<(String, u64)>,
    scroll: u16,
}

/// The terminal in raw mode; dropping it gives it back. A panic gives it back through ratatui's hook.
struct Screen(DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows the figures until somebody quits.
pub(super) async fn run(admin: &Admin, arguments: &TopArguments, first: Look) -> Result<()> {
    let mut watch = Watch::new(&arguments.admin, &arguments.cluster, first);
    let terminal = ratatui::try_init();
    if terminal.is_err() {
        ratatui::restore();
    }
    let mut screen = Screen(terminal.context("the terminal cannot be taken over")?);
    let mut events = events();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looking = Box::pin(look(admin));
    // A page that hangs must not keep a key from quitting: looks and keys are waited for side by side.
    let mut under_way = false;
    loop {
        let draw = |frame: &mut Frame<'_>| watch.draw(frame);
        screen.0.draw(draw).context("the terminal is gone")?;
        tokio::select! {
            event = events.recv() => match event {
                Some(Ok(Event::Key(key))) => {
                    if watch.key(key) {
                        return Ok(());
                    }
                }
                // Anything else, a resize above all, is a reason to draw again.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error).context("the terminal cannot be read"),
                None => bail!("the terminal is gone"),
            },
            // Also a reason to draw: figures that are not renewed grow old.
            _ = ticks.tick() => under_way = true,
            result = &mut looking, if under_way => {
                under_way = false;
                looking = Box::pin(look(admin));
                watch.looked(result);
            }
        }
    }
}

/// The terminal's events, from a thread of their own: crossterm's reading blocks.
fn events() -> mpsc::Receiver<std::io::Result<Event>> {
    let (sender, receiver) = mpsc::channel(16);
    thread::spawn(move || {
        while !sender.is_closed() {
            let event = match event::poll(KEY_POLL) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let failed = event.is_err();
            if sender.blocking_send(event).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(admin: &str, cluster: &str, first: Look) -> Self {
        Self {
            admin: admin.to_owned(),
            cluster: cluster.to_owned(),
            looks: [first].into(),
            lost: None,
            scroll: 0,
        }
    }

    /// Takes in a look, or that there was none.
    pub(super) fn looked(&mut self, result: Result<Look>) {
        let look = match result {
            Ok(look) => look,
            Err(error) => {
                let failures = self.lost.take().map_or(0, |(_, failures)| failures);
                self.lost = Some((format!("{error:#}"), failures + 1));
                return;
            }
        };
        self.lost = None;
        let uptime = |look: &Look| look.stats.find("server.uptime");
        if self
            .looks
            .back()
            .is_some_and(|last| uptime(&look) < uptime(last))
        {
            // Another Envoy: its counters began again.
            self.looks.clear();
        }
        let too_old = |old: &Look| look.at.saturating_duration_since(old.at) > WINDOW;
        while self.looks.len() > 1 && self.looks.front().is_some_and(too_old) {
            self.looks.pop_front();
        }
        self.looks.push_back(look);
    }

    /// What is shown now.
    pub(super) fn figures(&self) -> Option<Figures> {
        let (first, last) = (self.looks.front()?, self.looks.back()?);
        let mut figures = Figures::between(&self.admin, &self.cluster, first, last);
        // A leader that died within the window is dead all the same.
        let recent = |look: &&Look| last.at.saturating_duration_since(look.at) <= BEAT_MAX;
        let beat = |look: &Look| look.stats.gauge("embudo.leader_beat");
        let moved = self
            .looks
            .iter()
            .filter(recent)
            .any(|look| beat(look) != beat(last));
        // One look tells nothing.
        let told = self.looks.len() > 1;
        let alive = &mut figures.all.leader_alive;
        *alive = alive.and(told.then_some(moved));
        Some(figures)
    }

    /// How old the newest figures are.
    fn age(&self) -> Duration {
        let last = self.looks.back();
        last.map_or(Duration::ZERO, |look| look.at.elapsed())
    }

    /// Does what a key asks for; true: quit.
    pub(super) fn key(&mut self, key: KeyEvent) -> bool {
        if key.kind == KeyEventKind::Release {
            return false;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll = self.scroll.saturating_add(1),
            _ => {}
        }
        false
    }

    /// Draws the part of the screen that fits, and a line of keys or of what went wrong under it.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let Some(figures) = self.figures() else {
            return;
        };
        let whole = view::draw(&figures, area.width);
        let room = area.height.saturating_sub(1);
        let hidden = whole.area.height.saturating_sub(room);
        self.scroll = self.scroll.min(hidden);
        let buffer = frame.buffer_mut();
        for y in 0..room.min(whole.area.height - self.scroll) {
            for x in 0..area.width {
                let from = whole.cell(Position::new(x, y + self.scroll));
                let to = buffer.cell_mut(Position::new(area.x + x, area.y + y));
                if let (Some(from), Some(to)) = (from, to) {
                    *to = from.clone();
                }
            }
        }
        let bottom = match &self.lost {
            Some((why, failures)) => Line::styled(
                format!("LOST, figures are old; asked again {failures} times: {why}"),
                Style::new().fg(Color::White).bg(Color::Red),
            ),
            None if self.age() > BEAT_MAX => Line::styled(
                format!("no answer, figures are {} s old", self.age().as_secs()),
                Style::new().fg(Color::White).bg(Color::Red),
            ),
            None if hidden > 0 => Line::raw("q quits   up, down scroll"),
            None => Line::raw("q quits"),
        };
        let y = area.bottom().saturating_sub(1);
        buffer.set_line(area.x, y, &bottom, area.width);
    }
}
