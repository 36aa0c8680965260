<?php

namespace Embudo\Laravel\Sandbox;

use Closure;
use ReflectionClass;
use ReflectionProperty;

/**
 * Reads and writes what an object or a class has in its properties, whoever may see them.
 *
 * Arrays are copied when they are written to, and objects are kept as they are: a read costs a few microseconds.
 */
final class Objects
{
    /** @var array<class-string, array{Closure, Closure}> */
    private static array $access = [];

    /** @var array<class-string, array<int, string>> */
    private static array $fixed = [];

    /** @var array<class-string, Closure> */
    private static array $statics = [];

    /**
     * @param  array<int, string>  $but
     * @return array<string, mixed>
     */
    public static function read(object $object, array $but = []): array
    {
        $values = (self::access(get_class($object))[0])($object);
        foreach ($but === [] ? self::$fixed[get_class($object)] : array_merge($but, self::$fixed[get_class($object)]) as $name) {
            unset($values[$name]);
        }

        return $values;
    }

    /** @param array<string, mixed> $values */
    public static function write(object $object, array $values): void
    {
        (self::access(get_class($object))[1])($object, $values);
    }

    /**
     * @param  class-string  $class
     * @param  array<int, string>  $names
     * @return array<string, mixed>
     */
    public static function readStatic(string $class, array $names): array
    {
        return (self::$statics[$class] ??= self::staticsOf($class, $names))();
    }

    /**
     * @param  class-string  $class
     * @param  array<int, string>  $names
     */
    private static function staticsOf(string $class, array $names): Closure
    {
        $there = [];
        foreach ($names as $name) {
            // One that has a type and no value cannot be read.
            if (property_exists($class, $name) && (new ReflectionProperty($class, $name))->isInitialized()) {
                $there[] = $name;
            }
        }

        return Closure::bind(static function () use ($class, $there): array {
            $values = [];
            foreach ($there as $name) {
                $values[$name] = $class::$$name;
            }

            return $values;
        }, null, $class);
    }

    /**
     * What a class has in them before anybody has written to them.
     *
     * @param  class-string  $class
     * @param  array<int, string>  $names
     * @return array<string, mixed>
     */
    public static function initialStatic(string $class, array $names): array
    {
        return array_intersect_key((new ReflectionClass($class))->getDefaultProperties(), array_flip($names));
    }

    /**
     * @param  class-string  $class
     * @param  array<string, mixed>  $values
     */
    public static function writeStatic(string $class, array $values): void
    {
        Closure::bind(static function () use ($class, $values): void {
            foreach ($values as $name => $value) {
                $class::$$name = $value;
            }
        }, null, $class)();
    }

    /**
     * @param  class-string  $class
     * @return array{Closure, Closure}
     */
    private static function access(string $class): array
    {
        if (! isset(self::$access[$class])) {
            self::$fixed[$class] = self::fixed($class);
            self::$access[$class] = [
                Closure::bind(static fn (object $object): array => get_object_vars($object), null, $class),
                Closure::bind(static function (object $object, array $values): void {
                    foreach ($values as $name => $value) {
                        $object->$name = $value;
                    }
                }, null, $class),
            ];
        }

        return self::$access[$class];
    }

    /**
     * What cannot be written a second time.
     *
     * @param  class-string  $class
     * @return array<int, string>
     */
    private static function fixed(string $class): array
    {
        $fixed = [];
        foreach ((new ReflectionClass($class))->getProperties() as $property) {
            // PHP 8.0 has none.
            if (! $property->isStatic() && method_exists($property, 'isReadOnly') && $property->isReadOnly()) {
                $fixed[] = $property->getName();
            }
        }

        return $fixed;
    }
}
