//! Shards that no writer of ours would write, in bytes that read as shards.

use embudo_core::route::Destination;
use embudo_core::shard::{
    Beside, Claim, ClaimId, Dirty, Ended, Ending, Entry, HeldPlace, Item, Kept, Ledger, Orphan,
    Place, RefusedBody, Session, Settling, Shard, State, Trial,
};

use super::generate::Dice;

/// A well-formed shard with whatever in it.
pub(super) fn shard(dice: &mut Dice) -> Vec<u8> {
    let count = match dice.below(10) {
        0 => dice.below(300),
        _ => dice.below(6),
    };
    Shard {
        last_seq: dice.number(),
        last_wall_ms: dice.number(),
        rung: dice.chance(50),
        ledger: Ledger {
            accepted: dice.number(),
            delivered: dice.number(),
            superseded: dice.number(),
            expired: dice.number(),
            rejected: dice.number(),
            voided: dice.number(),
        },
        sessions: (0..count).map(|_| session(dice)).collect(),
        orphans: (0..dice.below(6)).map(|_| orphan(dice)).collect(),
    }
    .encode()
}

fn session(dice: &mut Dice) -> Session<'static> {
    let count = match dice.below(30) {
        0 => dice.below(200),
        _ => dice.below(4),
    };
    let id = match dice.chance(30) {
        true => 1,
        false => u128::from(dice.number()),
    };
    Session {
        id,
        newest_seq: dice.number(),
        unread_seq: dice.number(),
        through_seq: dice.number(),
        told_seq: dice.number(),
        claim: dice.chance(30).then(|| claim(dice)),
        entries: (0..count).map(|_| entry(dice)).collect(),
        kept: (0..dice.below(3)).map(|_| kept(dice)).collect(),
        ended: (0..dice.below(3)).map(|_| ended(dice)).collect(),
        beside: (0..dice.below(3)).map(|_| beside(dice)).collect(),
        held: (0..dice.below(4)).map(|_| held(dice)).collect(),
        refused: (0..dice.below(3)).map(|_| refused(dice)).collect(),
        settling: dice.chance(30).then(|| settling(dice)),
        hurry_until_ms: match dice.chance(20) {
            true => dice.number(),
            false => 0,
        },
    }
}

fn orphan(dice: &mut Dice) -> Orphan {
    Orphan {
        session: u128::from(dice.number()),
        caller: dice.number(),
        until_ms: dice.number(),
    }
}

fn held(dice: &mut Dice) -> HeldPlace {
    HeldPlace {
        seq: dice.number(),
        vm: dice.number(),
        caller: dice.number(),
        is_stranger: dice.chance(50),
        deadline_ms: dice.number(),
    }
}

fn beside(dice: &mut Dice) -> Beside {
    Beside {
        number: dice.number(),
        caller: dice.number(),
        seq: dice.number(),
        is_outside: dice.chance(50),
        begun_ms: dice.number(),
        deadline_ms: dice.number(),
    }
}

fn refused(dice: &mut Dice) -> RefusedBody {
    RefusedBody {
        body: dice.number(),
        seq: dice.number(),
        until_ms: dice.number(),
    }
}

fn trial(dice: &mut Dice) -> Trial {
    match dice.chance(70) {
        true => Trial::default(),
        false => Trial {
            alone: true,
            not_before_ms: dice.number(),
            lost: dice.chance(30),
            failures: u16::try_from(dice.number() % 8).unwrap_or(0),
            failed_since_ms: dice.number(),
            refusals: u16::try_from(dice.number() % 3).unwrap_or(0),
            refused_ms: dice.number(),
        },
    }
}

fn ended(dice: &mut Dice) -> Ended {
    let item = |dice: &mut Dice| Item {
        place: dice.number(),
        seq: dice.number(),
    };
    Ended {
        item: item(dice),
        how: match dice.below(4) {
            0 => Ending::Delivered,
            1 => Ending::Rejected(u16::try_from(dice.below(700)).unwrap_or(0)),
            2 => Ending::Expired,
            _ => Ending::Voided(item(dice)),
        },
        until_ms: dice.number(),
    }
}

fn settling(dice: &mut Dice) -> Settling<'static> {
    let state = |dice: &mut Dice| dice.one_of(&["active", "pending", ""]);
    Settling {
        was: (0..dice.below(4)).map(|_| state(dice)).collect(),
        delivered_ms: dice.number(),
        awaits: dice.chance(30),
    }
}

fn kept(dice: &mut Dice) -> Kept<'static> {
    let place = |dice: &mut Dice| Place {
        start: u32::try_from(dice.below(60)).unwrap_or(0),
        end: u32::try_from(dice.number() % 70).unwrap_or(0),
    };
    let body = match dice.chance(60) {
        true => br#"{"estado_qr":"active","status":"active"}"#.to_vec(),
        false => dice.bytes(),
    };
    Kept {
        read: dice.one_of(&["status", "status", "account", ""]).into(),
        caller: if dice.chance(70) { 0 } else { dice.number() },
        reader: dice.number(),
        fetched_ms: dice.number(),
        until_ms: dice.number(),
        floor: dice.number(),
        has_more: dice.chance(20),
        places: (0..dice.below(4)).map(|_| place(dice)).collect(),
        headers: dice.bytes().into(),
        body: body.into(),
    }
}

fn claim(dice: &mut Dice) -> Claim<'static> {
    Claim {
        id: ClaimId {
            epoch: dice.number(),
            counter: dice.number(),
        },
        route: route(dice).into(),
        caller: dice.number(),
        seq: dice.number(),
        deadline_ms: dice.number(),
    }
}

fn route(dice: &mut Dice) -> String {
    dice.one_of(&["qr", "qr", "status", "status", "gone", "", "\u{1f600}"])
        .to_owned()
}

fn entry(dice: &mut Dice) -> Entry<'static> {
    let caller = match dice.chance(70) {
        true => 0,
        false => dice.number(),
    };
    Entry {
        route: route(dice).into(),
        caller,
        seq: dice.number(),
        value: u128::from(dice.number()),
        word: dice.number(),
        accepted_ms: dice.number(),
        order: dice.chance(20).then(|| dice.number()),
        text: dice
            .chance(50)
            .then(|| dice.one_of(&["active", "pending", "", "\"\\\u{0}"]).into()),
        state: match dice.below(6) {
            0 => State::Clean {
                until_ms: dice.number(),
            },
            1 => State::Implied { by: dice.number() },
            _ => State::Dirty(dirty(dice)),
        },
    }
}

fn dirty(dice: &mut Dice) -> Dirty<'static> {
    let qr = dice.chance(50);
    let body = match dice.chance(60) {
        true => dice.body(qr).into_bytes(),
        false => dice.bytes(),
    };
    let destination = match dice.chance(70) {
        true => Destination {
            cluster: "laravel_batch".to_owned(),
            method: "POST".to_owned(),
            authority: dice.one_of(&["laravel.test", "b.test", ""]).to_owned(),
            prefix: "/api".to_owned(),
            path: "/qr".to_owned(),
            headers: Vec::new(),
        }
        .encode(),
        false => dice.bytes(),
    };
    Dirty {
        since_ms: dice.number(),
        timestamp_ms: dice.number(),
        attempts: u16::try_from(dice.number() % 8).unwrap_or(0),
        trial: trial(dice),
        priority: dice.chance(20),
        destination: destination.into(),
        neutral: dice.bytes().into(),
        members: dice.number(),
        body: body.into(),
    }
}
