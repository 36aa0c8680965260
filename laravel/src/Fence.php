<?php

namespace Embudo\Laravel;

use Closure;
use Embudo\Laravel\Batch\Item;
use Illuminate\Contracts\Cache\Factory;
use Illuminate\Contracts\Cache\LockProvider;
use Illuminate\Contracts\Cache\LockTimeoutException;
use Illuminate\Http\JsonResponse;
use Symfony\Component\HttpFoundation\Response;

/**
 * Keeps an older item from overwriting a newer one of the same session.
 *
 * Embudo never has two calls of a session under way, but it cannot know how long PHP goes on with one that it has given
 * up. Its sequence rises strictly within a session and an epoch, across both routes, so whatever is below the last one is
 * late. An epoch is the life of Embudo's store: of two of them nobody knows which is older, and the one that comes starts
 * anew. A batch without either has timestamps, which rise in the same way. Items posted alone come as the gateway sent
 * them, and are not fenced.
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
     * @param  Closure(): Response  $serve
     */
    public function guard(Item $item, Closure $serve): Response
    {
        $mark = $item->order ?? $item->timestamp;
        if (! $this->config['enabled'] || ! is_scalar($item->session) || $mark === null) {
            return $serve();
        }
        $key = 'embudo:'.sha1((string) $item->session);
        $store = $this->cache->store($this->config['store'])->getStore();
        $guarded = fn () => $this->serveIfNewer($key, $mark, $serve);
        if (! $store instanceof LockProvider) {
            return $guarded();
        }
        try {
            return $store->lock("{$key}:lock", self::LOCK_SECONDS)->block(self::WAIT_SECONDS, $guarded);
        } catch (LockTimeoutException $busy) {
            return new JsonResponse(['message' => 'The session is busy.'], Response::HTTP_SERVICE_UNAVAILABLE);
        }
    }

    /** @param array{epoch: string, seq: int}|int $mark */
    private function serveIfNewer(string $key, $mark, Closure $serve): Response
    {
        $store = $this->cache->store($this->config['store']);
        // Two orders that say nothing of each other.
        $key = is_array($mark) ? "{$key}:seq" : $key;
        if (self::isOlder($mark, $store->get($key))) {
            return new JsonResponse(['success' => true, 'skipped' => true, 'reason' => 'stale']);
        }
        $response = $serve();
        if ($response->isSuccessful()) {
            $store->put($key, $mark, $this->config['remember_seconds']);
        }

        return $response;
    }

    /**
     * Equal is the same item again, whose answer was lost.
     *
     * @param  array{epoch: string, seq: int}|int  $mark
     * @param  mixed  $last
     */
    private static function isOlder($mark, $last): bool
    {
        if (is_array($mark)) {
            return is_array($last) && $last['epoch'] === $mark['epoch'] && $mark['seq'] < $last['seq'];
        }

        return $mark < (int) $last;
    }
}
