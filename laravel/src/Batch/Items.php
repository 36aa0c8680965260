<?php

namespace Embudo\Laravel\Batch;

use Illuminate\Contracts\Validation\Factory as Validator;

/**
 * The items of a batch's body.
 *
 * `embudo` in it has a line for each item: its order (`seq`, within `epoch`), and `added`, the members that Embudo put in
 * because batch routes of others need them. Those are taken out, so that the single route is given what was sent.
 */
final class Items
{
    public function __construct(private Validator $validator, private int $max)
    {
    }

    /**
     * @return array<int, Item>
     *
     * @throws \Illuminate\Validation\ValidationException Laravel's usual 422, where there are no items or too many
     */
    public function of(string $body, string $field): array
    {
        $decoded = json_decode($body, true);
        $isList = static function (string $attribute, $value, callable $fail): void {
            if (is_array($value) && array_values($value) !== $value) {
                $fail("The {$attribute} must be a list.");
            }
        };
        $rules = [$field => ['bail', 'required', 'array', $isList, "max:{$this->max}"]];
        $values = $this->validator->make(is_array($decoded) ? $decoded : [], $rules)->validate()[$field];
        $raw = RawJson::elements(trim($body), $field);
        $said = is_array($decoded['embudo'] ?? null) ? $decoded['embudo'] : [];
        $items = [];
        foreach ($values as $at => $value) {
            $items[] = $this->item($raw[$at], $value, $said['epoch'] ?? null, $said['items'][$at] ?? null);
        }

        return $items;
    }

    /**
     * @param  mixed  $value
     * @param  mixed  $epoch
     * @param  mixed  $said
     */
    private function item(string $raw, $value, $epoch, $said): Item
    {
        if ($raw[0] !== '{') {
            return new Item(null, null, null, null);
        }
        $session = $value['session_id'] ?? $value['sessionId'] ?? null;
        if (! is_string($epoch) || ! is_array($said) || ! is_int($said['seq'] ?? null)) {
            return new Item($session, $raw, is_int($value['timestamp'] ?? null) ? $value['timestamp'] : null, null);
        }
        $added = is_array($said['added'] ?? null) ? $said['added'] : [];
        $sent = $added === [] ? $raw : RawJson::without($raw, $added);

        return new Item($session, $sent, null, ['epoch' => $epoch, 'seq' => $said['seq']]);
    }
}
