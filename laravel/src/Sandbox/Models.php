<?php

namespace Embudo\Laravel\Sandbox;

use Illuminate\Contracts\Events\Dispatcher;
use Illuminate\Database\Eloquent\Model;
use ReflectionClass;

/**
 * Whether a model has to be booted again for each item.
 *
 * Many are booted as the request is: with a tenant's scope, or a listener, where somebody is logged in. To boot one costs a
 * quarter of a millisecond, since Laravel looks at all of its methods; so those that Laravel alone boots, and that have
 * nothing left of it, stay booted.
 */
final class Models
{
    private const OWN = 'Illuminate\\';

    public function __construct(private Dispatcher $events)
    {
    }

    /**
     * To be asked at the end of an item that has booted it.
     *
     * @param  class-string  $class
     * @param  array<string, mixed>  $statics  Eloquent's, as the item has left them
     */
    public function isTheSameForAll(string $class, array $statics): bool
    {
        return empty($statics['globalScopes'][$class])
            && ! $this->isListenedTo($class) && ! $this->hasCodeOfItsOwn($class);
    }

    /** Somebody may want to hear of it for each item, or was told to listen while it was booted. */
    private function isListenedTo(string $class): bool
    {
        $names = array_merge(['booting', 'booted', 'retrieved'], (new $class())->getObservableEvents());
        foreach ($names as $name) {
            if ($this->events->hasListeners("eloquent.{$name}: {$class}")) {
                return true;
            }
        }

        return false;
    }

    private function hasCodeOfItsOwn(string $class): bool
    {
        $traits = array_map(static fn ($trait) => 'boot'.class_basename($trait), class_uses_recursive($class));
        foreach ((new ReflectionClass($class))->getMethods(\ReflectionMethod::IS_STATIC) as $method) {
            $isLaravels = strpos($method->getDeclaringClass()->getName(), self::OWN) === 0;
            $isBooting = in_array($method->getName(), ['boot', 'booting', 'booted'], true) || in_array($method->getName(), $traits, true);
            // A trait's method says that it is the class's; where it was written tells whose it is.
            $isWrittenThere = strpos((string) $method->getFileName(), '/Illuminate/') !== false;
            if (! $isLaravels && ! $isWrittenThere && ($isBooting || $method->getAttributes() !== [])) {
                return true;
            }
        }

        return is_subclass_of($class, Model::class) === false;
    }
}
