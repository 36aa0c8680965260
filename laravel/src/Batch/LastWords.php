<?php

namespace Embudo\Laravel\Batch;

use Symfony\Component\HttpFoundation\Response;
use Throwable;

/**
 * Answers a batch whose process is ending: `exit` and `dd()` in a controller, memory and time that have run out.
 *
 * What the items before have stored is stored, so the answer has to say so, or they come again and again. A fatal error
 * comes here twice: Laravel's handler renders it, and is given the batch's answer by a callback; then this is called.
 */
final class LastWords
{
    /** More memory for the end, where it has run out. */
    private const RESERVE_BYTES = 32 << 20;

    /** So long may what the items have left for afterwards go on, where time has run out. */
    private const SECONDS = 30;

    private static ?Run $run = null;

    private static bool $isRegistered = false;

    private static bool $isSaid = false;

    /** From now on the batch is answered, whatever happens. */
    public static function of(Run $run): void
    {
        self::$run = $run;
        self::$isSaid = false;
        if (! self::$isRegistered) {
            // It cannot be taken back, and a process may serve many batches.
            register_shutdown_function([self::class, 'say']);
            self::$isRegistered = true;
        }
    }

    public static function none(): void
    {
        self::$run = null;
    }

    /** The answer, for whoever sends it. */
    public static function answer(): ?Response
    {
        if (self::$run === null || self::$isSaid) {
            return null;
        }
        self::$isSaid = true;
        self::makeRoom();
        self::$run->discardOutput();

        return self::$run->answerAtItsEnd();
    }

    public static function say(): void
    {
        $run = self::$run;
        if ($run === null) {
            return;
        }
        $answer = self::answer();
        self::$run = null;
        // Whoever has sent an answer of his own has ended the request; nobody hears another.
        if ($answer !== null && ! headers_sent()) {
            $answer->send();
        }
        if (function_exists('fastcgi_finish_request')) {
            fastcgi_finish_request();
        }
        try {
            $run->terminate();
        } catch (Throwable $broken) {
            error_log((string) $broken);
        }
    }

    private static function makeRoom(): void
    {
        if ((int) ini_get('memory_limit') > 0) {
            ini_set('memory_limit', (string) (memory_get_usage(true) + self::RESERVE_BYTES));
        }
        set_time_limit(self::SECONDS);
    }
}
