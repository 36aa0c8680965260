<?php

namespace Embudo\Laravel;

use Closure;
use Illuminate\Contracts\Cache\Factory;
use Illuminate\Contracts\Cache\LockProvider;
use Illuminate\Contracts\Cache\LockTimeoutException;
use Illuminate\Http\JsonResponse;
use Symfony\Component\HttpFoundation\Response;

/**
 * Keeps an older item from overwriting a newer one of the same session.
 *
 * Embudo never has two calls of a session under way, but it cannot know how long PHP goes on with one that it has given
 * up. Its timestamps rise strictly within a session, across both routes, so whatever is below the last one is late.
 * Items posted alone come as the gateway sent them, without a timestamp, and are not fenced.
 */
final class Fence
{
    /** Longer than PHP may serve one item. */
    private const LOCK_SECONDS = 60;

    /** How long an item waits for another of its session; then Embudo sends it again. */
    private const WAIT_SECONDS = 5;

    /** @param array{enabled: bool, store: ?string, remember_seconds: int} $config */
    public function __construct(private Factory $cache, private array $config)
    {
    }

    /**
     * Runs `$serve` unless the item is older than what its session has.
     *
     * @param  array<string, mixed>  $item
     * @param  Closure(): Response  $serve
     */
    public function guard(array $item, Closure $serve): Response
    {
        $session = $item['session_id'] ?? $item['sessionId'] ?? null;
        $timestamp = $item['timestamp'] ?? null;
        if (! $this->config['enabled'] || ! is_scalar($session) || ! is_int($timestamp)) {
            return $serve();
        }
        $key = 'embudo:'.sha1((string) $session);
        $guarded = fn () => $this->serveIfNewer($key, $timestamp, $serve);
        $store = $this->cache->store($this->config['store']);
        if (! $store->getStore() instanceof LockProvider) {
            return $guarded();
        }
        try {
            return $store->getStore()->lock("{$key}:lock", self::LOCK_SECONDS)->block(self::WAIT_SECONDS, $guarded);
        } catch (LockTimeoutException $busy) {
            return new JsonResponse(['message' => 'The session is busy.'], Response::HTTP_SERVICE_UNAVAILABLE);
        }
    }

    private function serveIfNewer(string $key, int $timestamp, Closure $serve): Response
    {
        $store = $this->cache->store($this->config['store']);
        // Equal is the same item again, whose answer was lost.
        if ($timestamp < (int) $store->get($key, 0)) {
            return new JsonResponse(['success' => true, 'skipped' => true, 'reason' => 'stale']);
        }
        $response = $serve();
        if ($response->isSuccessful()) {
            $store->put($key, $timestamp, $this->config['remember_seconds']);
        }

        return $response;
    }
}
