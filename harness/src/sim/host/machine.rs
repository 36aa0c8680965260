//! The compiled module: one for the process, instantiated once for each VM.
//!
//! The pooling allocator is what makes a VM cheap: its memory is a slot that is reset, and a callback's
//! stack is one of a pool, where a fresh mapping for each would cost more than the callback itself.

use anyhow::{Context as _, Result};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, OptLevel,
    PoolingAllocationConfig,
};

use super::Guest;
use crate::sim::abi;

/// Envoy's VMs may have more; the filter never needs as much, and a leak would be found.
const MEMORY_BYTES_MAX: usize = 64 << 20;

/// VMs at once: two threads of simulation with a dozen each, and what tests add to that.
const INSTANCES_MAX: u32 = 400;

/// Instructions of one callback after which it counts as endless: about a second of real time.
pub(super) const FUEL_MAX: u64 = 2_000_000_000;

/// A module, ready to be instantiated.
#[derive(Clone)]
pub struct Machine {
    pub(super) engine: Engine,
    pub(super) instance: InstancePre<Guest>,
}

// === impl Machine ===

impl Machine {
    /// Compiles a module.
    ///
    /// # Errors
    /// It is no module, or it imports what the host does not offer.
    pub fn new(module: &[u8]) -> Result<Self> {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_core_instances(INSTANCES_MAX)
            .total_memories(INSTANCES_MAX)
            .total_tables(INSTANCES_MAX)
            .total_stacks(2 * INSTANCES_MAX)
            .max_memory_size(MEMORY_BYTES_MAX)
            .linear_memory_keep_resident(1 << 20)
            .async_stack_keep_resident(64 << 10);
        let mut config = Config::new();
        config
            .cranelift_opt_level(OptLevel::Speed)
            .consume_fuel(true)
            .memory_reservation(MEMORY_BYTES_MAX as u64)
            .memory_guard_size(64 << 10)
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let words = |error: wasmtime::Error| anyhow::anyhow!("{error:?}");
        let engine = Engine::new(&config).map_err(words)?;
        let module = Module::new(&engine, module)
            .map_err(words)
            .context("the module does not compile")?;
        let mut linker = Linker::new(&engine);
        abi::link(&mut linker).map_err(words)?;
        let instance = linker
            .instantiate_pre(&module)
            .map_err(words)
            .context("the module wants what this host does not offer")?;
        Ok(Self { engine, instance })
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Machine(..)")
    }
}
