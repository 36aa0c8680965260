<?php

namespace Embudo\Laravel;

use Symfony\Component\HttpFoundation\Response;

/**
 * An item's line in `results`: the status that its single post would have been answered with, and why.
 *
 * Embudo takes a status below 300 for delivered, sends an item again after 408, 425, 429 and 5xx, and posts it once
 * alone after any other.
 */
final class Verdict
{
    private const NO = [false, 0, 'false', '0'];

    private const YES = [true, 1, 'true', '1'];

    private const NOTHING = [null, false, 0, '0', '', []];

    /**
     * @param  mixed  $session
     * @return array<string, mixed>
     */
    public static function of($session, Response $response): array
    {
        $body = json_decode((string) $response->getContent(), true);
        $body = is_array($body) ? $body : [];
        $line = ['session_id' => is_scalar($session) ? $session : null, 'status' => self::status($response, $body)];
        $shown = $line['status'] < 300 ? ['skipped', 'reason'] : ['message', 'errors'];

        return $line + array_intersect_key($body, array_flip($shown));
    }

    /** @param array<string, mixed> $line */
    public static function isProcessed(array $line): bool
    {
        return $line['status'] < 400;
    }

    /** @param array<string, mixed> $line */
    public static function isSkipped(array $line): bool
    {
        return ($line['skipped'] ?? null) === true;
    }

    /**
     * Two answers are no success here, though their status may say so: a redirect is how Laravel turns a browser away
     * that did not validate or log in, and `{"success":false}` is how some controllers refuse. Alone, Embudo sees both.
     *
     * @param  array<mixed>  $body
     */
    private static function status(Response $response, array $body): int
    {
        $isRefusal = $response->isRedirection() || ($response->isSuccessful() && self::saysFailure($body));

        return $isRefusal ? Response::HTTP_UNPROCESSABLE_ENTITY : $response->getStatusCode();
    }

    /** @param array<mixed> $body */
    private static function saysFailure(array $body): bool
    {
        $success = $body['success'] ?? null;
        if (in_array($success, self::NO, true)) {
            return true;
        }
        if (in_array($success, self::YES, true)) {
            return false;
        }
        $status = $body['status'] ?? null;
        $isFailure = is_string($status) && in_array(strtolower($status), ['fail', 'failed', 'error'], true);

        return in_array($body['ok'] ?? null, self::NO, true) || $isFailure
            || ! in_array($body['error'] ?? null, self::NOTHING, true)
            || ! in_array($body['failed'] ?? null, self::NOTHING, true);
    }
}
