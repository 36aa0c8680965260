//! One row a host function.

use wasmtime::{Caller, Linker};

use super::{Guest, Outcome, Refusal, Status, carry_out, enter, env, wasi};

/// Makes the enum of all host functions, and the linker's entries.
macro_rules! table {
    (
        there: { $( $module:ident :: $name:ident ( $($argument:ident : $kind:ty),* ) => $body:path; )* }
        absent: { $( $absent:ident ( $($absent_argument:ident),* ); )* }
    ) => {
        /// A host function.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub(crate) enum HostFunction {
            #[default]
            proc_exit,
            $($name,)*
            $($absent,)*
        }

        impl HostFunction {
            /// Its name, as imported.
            #[must_use]
            pub(crate) fn name(self) -> &'static str {
                match self {
                    Self::proc_exit => "proc_exit",
                    $(Self::$name => stringify!($name),)*
                    $(Self::$absent => stringify!($absent),)*
                }
            }
        }

        /// Offers every host function. What a module imports beyond them is an error when it is linked.
        pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
            $(
                linker.func_wrap_async(
                    stringify!($module),
                    stringify!($name),
                    |mut caller: Caller<'_, Guest>, ($($argument,)*): ($($kind,)*)| {
                        Box::new(async move {
                            let function = HostFunction::$name;
                            enter(&mut caller, function).await?;
                            carry_out(&mut caller, function, |call| $body(call, $($argument),*)).await
                        })
                    },
                )?;
            )*
            $(
                linker.func_wrap_async(
                    "env",
                    stringify!($absent),
                    |mut caller: Caller<'_, Guest>, ($($absent_argument,)*): ($(one!($absent_argument),)*)| {
                        Box::new(async move {
                            let function = HostFunction::$absent;
                            enter(&mut caller, function).await?;
                            let _ = ($($absent_argument,)*);
                            carry_out(&mut caller, function, |_| unimplemented_here()).await
                        })
                    },
                )?;
            )*
            linker.func_wrap_async(
                "wasi_snapshot_preview1",
                "proc_exit",
                |mut caller: Caller<'_, Guest>, (code,): (u32,)| {
                    Box::new(async move {
                        enter(&mut caller, HostFunction::proc_exit).await?;
                        Err::<(), _>(wasmtime::format_err!("the guest ended with code {code}"))
                    })
                },
            )?;
            Ok(())
        }
    };
}

/// Every parameter of the functions that are not there is a number of 32 bits.
macro_rules! one {
    ($argument:ident) => {
        u32
    };
}

fn unimplemented_here() -> Outcome {
    Err(Refusal::Status(Status::Unimplemented))
}

table! {
    there: {
    env::proxy_log(level: u32, at: u32, size: u32) => env::log;
    env::proxy_get_current_time_nanoseconds(at: u32) => env::wall_clock;
    env::proxy_set_tick_period_milliseconds(ms: u32) => env::set_tick_period;
    env::proxy_get_buffer_bytes(kind: u32, start: u32, size: u32, at: u32, size_at: u32) => env::get_buffer;
    env::proxy_set_buffer_bytes(kind: u32, start: u32, size: u32, at: u32, bytes: u32) => env::set_buffer;
    env::proxy_get_property(path: u32, path_size: u32, at: u32, size_at: u32) => env::get_property;
    env::proxy_get_header_map_pairs(kind: u32, at: u32, size_at: u32) => env::get_headers;
    env::proxy_get_header_map_value(kind: u32, name: u32, name_size: u32, at: u32, size_at: u32) => env::get_header;
    env::proxy_replace_header_map_value(kind: u32, name: u32, name_size: u32, value: u32, value_size: u32) => env::replace_header;
    env::proxy_add_header_map_value(kind: u32, name: u32, name_size: u32, value: u32, value_size: u32) => env::add_header;
    env::proxy_remove_header_map_value(kind: u32, name: u32, name_size: u32) => env::remove_header;
    env::proxy_get_shared_data(key: u32, key_size: u32, at: u32, size_at: u32, token_at: u32) => env::get_shared_data;
    env::proxy_set_shared_data(key: u32, key_size: u32, value: u32, value_size: u32, token: u32) => env::set_shared_data;
    env::proxy_register_shared_queue(name: u32, name_size: u32, at: u32) => env::register_queue;
    env::proxy_resolve_shared_queue(vm_id: u32, vm_id_size: u32, name: u32, name_size: u32, at: u32) => env::resolve_queue;
    env::proxy_enqueue_shared_queue(queue: u32, value: u32, value_size: u32) => env::enqueue;
    env::proxy_dequeue_shared_queue(queue: u32, at: u32, size_at: u32) => env::dequeue;
    env::proxy_define_metric(kind: u32, name: u32, name_size: u32, at: u32) => env::define_metric;
    env::proxy_record_metric(metric: u32, value: u64) => env::record_metric;
    env::proxy_increment_metric(metric: u32, by: i64) => env::increment_metric;
    env::proxy_http_call(cluster: u32, cluster_size: u32, headers: u32, headers_size: u32, body: u32, body_size: u32, trailers: u32, trailers_size: u32, timeout_ms: u32, token_at: u32) => env::http_call;
    env::proxy_send_local_response(status: u32, details: u32, details_size: u32, body: u32, body_size: u32, headers: u32, headers_size: u32, grpc: i32) => env::send_local_response;
    env::proxy_set_effective_context(context: u32) => env::set_effective_context;
    env::proxy_continue_stream(kind: u32) => env::continue_stream;
    env::proxy_done() => env::done;
    wasi_snapshot_preview1::clock_time_get(clock: u32, precision: u64, at: u32) => wasi::clock_time_get;
    wasi_snapshot_preview1::random_get(at: u32, size: u32) => wasi::random_get;
    wasi_snapshot_preview1::fd_write(descriptor: u32, vectors: u32, count: u32, written_at: u32) => wasi::fd_write;
    wasi_snapshot_preview1::environ_get(pointers: u32, bytes: u32) => wasi::environ_get;
    wasi_snapshot_preview1::environ_sizes_get(count_at: u32, size_at: u32) => wasi::environ_sizes_get;
    wasi_snapshot_preview1::args_get(pointers: u32, bytes: u32) => wasi::environ_get;
    wasi_snapshot_preview1::args_sizes_get(count_at: u32, size_at: u32) => wasi::environ_sizes_get;
    }

    absent: {
    // Imported by the SDK; the filter calls none of them, and the SDK turns the status into a panic.
    proxy_close_stream(a);
    proxy_set_property(a, b, c, d);
    proxy_get_status(a, b, c);
    proxy_set_header_map_pairs(a, b, c);
    proxy_call_foreign_function(a, b, c, d, e, f);
    proxy_get_log_level(a);
    proxy_grpc_call(a, b, c, d, e, f, g, h, i, j, k, l);
    proxy_grpc_stream(a, b, c, d, e, f, g, h, i);
    proxy_grpc_send(a, b, c, d);
    proxy_grpc_cancel(a);
    proxy_grpc_close(a);
    }
}
