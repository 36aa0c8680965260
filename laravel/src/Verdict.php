<?php

namespace Embudo\Laravel;

use Symfony\Component\HttpFoundation\Response;

/**
 * An item's line in `results`: the status that its single post would have been answered with, and why.
 *
 * Embudo takes a status below 400 for delivered, sends an item again after 408, 425, 429 and 5xx, and posts it once
 * alone after any other.
 */
final class Verdict
{
    /**
     * @param  mixed  $item
     * @return array<string, mixed>
     */
    public static function of($item, Response $response): array
    {
        $item = is_array($item) ? $item : [];
        $body = json_decode((string) $response->getContent(), true);
        $body = is_array($body) ? $body : [];
        $line = ['session_id' => $item['session_id'] ?? $item['sessionId'] ?? null, 'status' => self::status($response)];
        $shown = $response->isSuccessful() ? ['skipped', 'reason'] : ['message', 'errors'];

        return $line + array_intersect_key($body, array_flip($shown));
    }

    /** @param array<string, mixed> $line */
    public static function isProcessed(array $line): bool
    {
        return $line['status'] < 400;
    }

    /** A redirect is how Laravel turns a browser away that did not validate or log in: nothing was stored. */
    private static function status(Response $response): int
    {
        return $response->isRedirection() ? Response::HTTP_UNPROCESSABLE_ENTITY : $response->getStatusCode();
    }
}
