//! Shared queues: FIFO, unbounded, one wake-up for each item to whoever registered last.

use std::collections::{BTreeMap, VecDeque};

/// Who is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registrar {
    /// The VM.
    pub vm: u32,
    /// The root context that registered.
    pub context: u32,
}

/// All queues of the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queues {
    names: BTreeMap<(String, String), u32>,
    queues: BTreeMap<u32, Queue>,
}

#[derive(Clone, Debug)]
struct Queue {
    registrar: Registrar,
    items: VecDeque<Vec<u8>>,
}

// === impl Queues ===

impl Queues {
    /// Creates the queue if need be. The last to register is the one that is woken.
    pub(crate) fn register(&mut self, vm_id: &str, name: &str, registrar: Registrar) -> u32 {
        let next = u32::try_from(self.names.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let id = *self
            .names
            .entry((vm_id.to_owned(), name.to_owned()))
            .or_insert(next);
        let items = VecDeque::new();
        self.queues
            .entry(id)
            .or_insert(Queue { registrar, items })
            .registrar = registrar;
        id
    }

    /// The queue of this name, once somebody registered it.
    #[must_use]
    pub(crate) fn resolve(&self, vm_id: &str, name: &str) -> Option<u32> {
        self.names
            .get(&(vm_id.to_owned(), name.to_owned()))
            .copied()
    }

    /// Adds an item, and says who is to be woken.
    pub(crate) fn enqueue(&mut self, queue: u32, item: Vec<u8>) -> Option<Registrar> {
        let queue = self.queues.get_mut(&queue)?;
        queue.items.push_back(item);
        Some(queue.registrar)
    }

    /// Takes the oldest item: `None` without such a queue, `Some(None)` where it is empty.
    pub(crate) fn dequeue(&mut self, queue: u32) -> Option<Option<Vec<u8>>> {
        Some(self.queues.get_mut(&queue)?.items.pop_front())
    }
}
