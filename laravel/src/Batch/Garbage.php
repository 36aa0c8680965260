<?php

namespace Embudo\Laravel\Batch;

/**
 * Lets PHP's cycle collector wait while a batch is served.
 *
 * It looks through all that is alive each time that ten thousand values were let go of. Served items stay alive until the
 * batch was answered, so it would look through them again and again, for a third of the batch's time, and find little. Where
 * items leave much behind it is called between two of them.
 */
final class Garbage
{
    /** What may lie about. A request of Laravel's leaves some kilobytes. */
    private const BYTES = 16 << 20;

    private bool $isOn = false;

    private int $from = 0;

    public function wait(): void
    {
        if (gc_enabled()) {
            $this->isOn = true;
            gc_disable();
        }
        $this->from = memory_get_usage();
    }

    public function collect(): void
    {
        if (memory_get_usage() - $this->from > self::BYTES) {
            gc_collect_cycles();
            $this->from = memory_get_usage();
        }
    }

    /** A server's process ends its request soon, and PHP puts the setting back; a worker goes on for long. */
    public function waitNoLonger(): void
    {
        if ($this->isOn && PHP_SAPI === 'cli') {
            gc_enable();
        }
    }
}
