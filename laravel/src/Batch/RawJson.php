<?php

namespace Embudo\Laravel\Batch;

/**
 * The bytes of JSON's parts, as they were sent: `1.0`, `{}` and `\u00e9` are none of these after a decoder.
 *
 * For JSON that `json_decode` has accepted; of anything else it says nothing sensible. It looks at brackets and quotes
 * only, so that a QR of 3 KB is one step.
 */
final class RawJson
{
    private const BLANK = " \t\r\n";

    /**
     * The elements of the array that the object has as this member; of equal names the last, as PHP reads them.
     *
     * @return array<int, string>
     */
    public static function elements(string $object, string $name): array
    {
        $elements = [];
        foreach (self::members($object) as [$known, , $from, $to]) {
            if ($known === $name) {
                $elements = $object[$from] === '[' ? self::elementsOf(substr($object, $from, $to - $from)) : [];
            }
        }

        return $elements;
    }

    /**
     * The object without these members: with the comma before each, and all other bytes as they were.
     *
     * @param  array<int, string>  $names
     */
    public static function without(string $object, array $names): string
    {
        $members = self::members($object);
        for ($at = count($members) - 1; $at >= 0; $at--) {
            [$name, $from, , $to] = $members[$at];
            if (! in_array($name, $names, true)) {
                continue;
            }
            if ($at > 0) {
                $from = $members[$at - 1][3];
                $from += strspn($object, self::BLANK, $from);
            } elseif (isset($members[1])) {
                $to = $members[1][1];
            }
            $object = substr_replace($object, '', $from, $to - $from);
            array_splice($members, $at, 1);
            // What came behind the first one has moved; it is looked at no more unless the first goes, too.
            if ($at === 0) {
                return self::without($object, $names);
            }
        }

        return $object;
    }

    /**
     * Each member's name, where the name begins, and where its value begins and ends.
     *
     * @return array<int, array{string, int, int, int}>
     */
    private static function members(string $object): array
    {
        $members = [];
        $at = 1 + strspn($object, self::BLANK);
        $at += strspn($object, self::BLANK, $at);
        while (($object[$at] ?? '}') !== '}') {
            $end = self::endOfString($object, $at);
            $name = (string) json_decode(substr($object, $at, $end - $at));
            $from = $end + strspn($object, self::BLANK.':', $end);
            $to = self::end($object, $from);
            $members[] = [$name, $at, $from, $to];
            $at = $to + strspn($object, self::BLANK.',', $to);
        }

        return $members;
    }

    /** @return array<int, string> */
    private static function elementsOf(string $array): array
    {
        $elements = [];
        $at = 1 + strspn($array, self::BLANK, 1);
        while (($array[$at] ?? ']') !== ']') {
            $to = self::end($array, $at);
            $elements[] = substr($array, $at, $to - $at);
            $at = $to + strspn($array, self::BLANK.',', $to);
        }

        return $elements;
    }

    /** Where the value that begins here ends. */
    private static function end(string $json, int $at): int
    {
        if ($json[$at] === '"') {
            return self::endOfString($json, $at);
        }
        if ($json[$at] !== '{' && $json[$at] !== '[') {
            return $at + strcspn($json, ',]}'.self::BLANK, $at);
        }
        $depth = 0;
        do {
            $at += strcspn($json, '"{}[]', $at);
            switch ($json[$at]) {
                case '"':
                    $at = self::endOfString($json, $at);
                    break;
                case '{':
                case '[':
                    $depth++;
                    $at++;
                    break;
                default:
                    $depth--;
                    $at++;
            }
        } while ($depth > 0);

        return $at;
    }

    private static function endOfString(string $json, int $at): int
    {
        $at++;
        for (;;) {
            $at += strcspn($json, '"\\', $at);
            if ($json[$at] === '"') {
                return $at + 1;
            }
            $at += 2;
        }
    }
}
