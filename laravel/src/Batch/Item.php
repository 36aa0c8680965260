<?php

namespace Embudo\Laravel\Batch;

/** One item of a batch: what the gateway sent, and what Embudo says of it. */
final class Item
{
    /**
     * @param  string|null  $session  the session, as `results` names it
     * @param  string|null  $body  the bytes that the gateway sent; null where they are no object
     * @param  int|null  $timestamp  the order of a batch without `embudo`
     * @param  array{epoch: string, seq: int}|null  $order  the order of a batch with it
     */
    public function __construct(
        public $session,
        public ?string $body,
        public ?int $timestamp,
        public ?array $order
    ) {
    }
}
