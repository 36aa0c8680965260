<?php

namespace Embudo\Laravel\Tests\Conformance;

use Closure;

/** Something that an application does with a request, written once. */
final class Behaviour
{
    /**
     * @param  Closure(\Illuminate\Foundation\Application): void  $set  makes the route `api/qr`, and what it needs
     * @param  array<string, mixed>  $item  what the item says beside its session
     * @param  array<string, mixed>  $others  what the other items of its batch say, where that is not the same
     * @param  array<string, string>  $headers  of the request, and so of the batch
     * @param  int  $since  the first Laravel that has it
     */
    public function __construct(
        public Closure $set,
        public array $item = ['qr' => 'plain'],
        public array $others = ['qr' => 'vip'],
        public array $headers = [],
        public int $since = 8
    ) {
    }
}
