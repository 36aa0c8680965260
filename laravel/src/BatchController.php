<?php

namespace Embudo\Laravel;

use Illuminate\Contracts\Validation\Factory as Validator;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Symfony\Component\HttpFoundation\Response;

/**
 * Takes a batch apart, has the application's single route serve each item, and tells what became of each.
 */
final class BatchController
{
    public function __construct(private SingleRoute $single, private Fence $fence, private Validator $validator)
    {
    }

    public function __invoke(Request $batch): Response
    {
        $rule = $batch->route()->getAction('embudo');
        $requests = new ItemRequests($batch, $rule['single']);
        // Throws what the single route would have answered, where the application has lost it.
        $once = $this->single->middlewareOnce($requests->of([], null));

        return $this->single->through($batch, $once, fn () => $this->serve($batch, $rule['field'], $requests));
    }

    private function serve(Request $batch, string $field, ItemRequests $requests): Response
    {
        $items = $this->items($batch, $field);
        // PHP's arrays cannot tell {} from []; a controller that reads the raw body shall see what was sent.
        $raw = json_decode($batch->getContent())->{$field};
        $results = [];
        foreach ($items as $at => $item) {
            $response = $this->serveItem($item, $raw[$at], $requests);
            // All items have the same credentials: whoever is not let in with the first has no others to show.
            if ($at === 0 && $response->getStatusCode() === Response::HTTP_UNAUTHORIZED) {
                return $response;
            }
            $results[] = Verdict::of($item, $response);
        }

        return new JsonResponse([
            'success' => true,
            'processed' => count(array_filter($results, [Verdict::class, 'isProcessed'])),
            'results' => $results,
        ]);
    }

    /**
     * The items, or Laravel's usual 422.
     *
     * @return array<int, mixed>
     */
    private function items(Request $batch, string $field): array
    {
        $max = (int) config('embudo.max_items');
        $isList = static function (string $attribute, $value, callable $fail): void {
            if (is_array($value) && array_values($value) !== $value) {
                $fail("The {$attribute} must be a list.");
            }
        };
        $rules = [$field => ['bail', 'required', 'array', $isList, "max:{$max}"]];

        return $this->validator->make($batch->json()->all(), $rules)->validate()[$field];
    }

    /** @param mixed $item */
    private function serveItem($item, $raw, ItemRequests $requests): Response
    {
        if (! is_object($raw)) {
            return new JsonResponse(['message' => 'The item must be an object.'], Response::HTTP_UNPROCESSABLE_ENTITY);
        }

        return $this->fence->guard($item, fn () => $this->single->serve($requests->of($item, $raw)));
    }
}
