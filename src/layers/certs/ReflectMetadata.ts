/**
 * The three functions of the old proposal "reflect-metadata" that `@peculiar/x509` asks of its surroundings: it finds its
 * algorithms by a container that refuses to load without them. None of its classes is decorated with anything of ours.
 */

type Bag = Map<unknown, unknown>

/** Adds what is missing to `Reflect`, for the rest of the process; what somebody else added is left. */
export const addReflectMetadata = (): void => {
  const bags = new WeakMap<object, Bag>()
  const own = (key: unknown, target: object) => bags.get(target)?.get(key)
  const found = (key: unknown, target: object): unknown => {
    if (bags.get(target)?.has(key) === true) return own(key, target)
    const parent: unknown = Object.getPrototypeOf(target)
    return typeof parent === "object" && parent !== null || typeof parent === "function"
      ? found(key, parent)
      : undefined
  }
  const define = (key: unknown, value: unknown, target: object) => {
    const bag: Bag = bags.get(target) ?? new Map<unknown, unknown>()
    bags.set(target, bag.set(key, value))
  }
  if ("getMetadata" in Reflect) return
  Object.assign(Reflect, { defineMetadata: define, getMetadata: found, getOwnMetadata: own })
}
