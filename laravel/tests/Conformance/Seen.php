<?php

namespace Embudo\Laravel\Tests\Conformance;

/** What was seen of each session, in order: what a behaviour notes, and the events of its requests. */
final class Seen
{
    /** @var array<string, array<int, array{string, mixed}>> */
    private static array $of = [];

    public static function nothing(): void
    {
        self::$of = [];
    }

    /** @param mixed $value */
    public static function note(string $what, $value = null, ?string $session = null): void
    {
        $session ??= app('request')->input('session_id');
        if (is_string($session)) {
            self::$of[$session][] = [$what, $value];
        }
    }

    /** @return array<int, array{string, mixed}> */
    public static function of(string $session): array
    {
        return self::$of[$session] ?? [];
    }
}
