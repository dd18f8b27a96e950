/** Objects as a Kubernetes API server keeps them: one rising version for all kinds, and a memory of what changed. */
import { randomUUID } from "node:crypto"

export type Json = { [key: string]: unknown }

export interface Meta extends Json {
  name: string
  namespace?: string
  uid: string
  resourceVersion: string
  creationTimestamp: string
  deletionTimestamp?: string
  deletionGracePeriodSeconds?: number
  generation?: number
  labels?: Record<string, string>
  annotations?: Record<string, string>
  finalizers?: Array<string>
  ownerReferences?: Array<
    { apiVersion: string; kind: string; name: string; uid: string; controller?: boolean; blockOwnerDeletion?: boolean }
  >
}

export interface Thing extends Json {
  apiVersion: string
  kind: string
  metadata: Meta
  spec?: Json
  status?: Json
}

/** One that is to be made: the store gives it what it lacks. */
export interface Draft extends Json {
  apiVersion: string
  kind: string
  metadata: Partial<Meta>
  spec?: Json
  status?: Json
}

export interface Kind {
  readonly plural: string
  readonly kind: string
  readonly group: string
  readonly version: string
  readonly namespaced: boolean
}

export const kinds: ReadonlyArray<Kind> = [
  { plural: "jobs", kind: "Job", group: "batch", version: "v1", namespaced: true },
  { plural: "pods", kind: "Pod", group: "", version: "v1", namespaced: true },
  { plural: "secrets", kind: "Secret", group: "", version: "v1", namespaced: true },
  { plural: "events", kind: "Event", group: "", version: "v1", namespaced: true },
  { plural: "serviceaccounts", kind: "ServiceAccount", group: "", version: "v1", namespaced: true },
  { plural: "namespaces", kind: "Namespace", group: "", version: "v1", namespaced: false },
  { plural: "nodes", kind: "Node", group: "", version: "v1", namespaced: false }
]

/** Why a request is not carried out, as HTTP and `Status` say it. */
export class Refusal extends Error {
  readonly code: number
  readonly reason: string
  constructor(code: number, reason: string, message: string) {
    super(message)
    this.code = code
    this.reason = reason
  }
}

export interface Change {
  readonly version: number
  readonly type: "ADDED" | "MODIFIED" | "DELETED"
  readonly kind: Kind
  readonly object: Thing
  readonly before: Thing | undefined
}

export type Selector = (object: Thing) => boolean

/** RFC 3339 in whole seconds, as Kubernetes writes its times. */
export const stamp = (at: number = Date.now()): string => new Date(at).toISOString().replace(/\.\d+Z$/, "Z")

const copy = <A>(value: A): A => structuredClone(value)

export class Store {
  version = 1000
  /** What is older than this is forgotten. */
  oldest = 0
  readonly #objects = new Map<string, Thing>()
  #changes: Array<Change> = []
  readonly #listeners = new Set<(change: Change) => void>()
  /** Changes that are remembered. */
  readonly most = 5000

  #key(kind: Kind, namespace: string, name: string) {
    return `${kind.plural}/${kind.namespaced ? namespace : ""}/${name}`
  }

  onChange(listener: (change: Change) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  #changed(type: Change["type"], kind: Kind, object: Thing, before: Thing | undefined) {
    const change = { version: this.version, type, kind, object: copy(object), before }
    this.#changes.push(change)
    if (this.#changes.length > this.most) {
      this.compact(this.#changes[this.#changes.length - this.most / 2]?.version ?? 0)
    }
    for (const listener of this.#listeners) listener(change)
  }

  /** Forgets what came before that version. */
  compact(version: number = this.version): void {
    this.oldest = version
    this.#changes = this.#changes.filter((change) => change.version > version)
  }

  since(version: number): ReadonlyArray<Change> {
    if (version < this.oldest) {
      throw new Refusal(410, "Expired", `too old resource version: ${version} (${this.oldest})`)
    }
    return this.#changes.filter((change) => change.version > version)
  }

  find(kind: Kind, namespace: string, name: string): Thing | undefined {
    const found = this.#objects.get(this.#key(kind, namespace, name))
    return found === undefined ? undefined : copy(found)
  }

  get(kind: Kind, namespace: string, name: string): Thing {
    const found = this.find(kind, namespace, name)
    if (found !== undefined) return found
    const group = kind.group === "" ? "" : `.${kind.group}`
    throw new Refusal(404, "NotFound", `${kind.plural}${group} "${name}" not found`)
  }

  list(kind: Kind, namespace: string | undefined, selector: Selector = () => true): ReadonlyArray<Thing> {
    const found: Array<Thing> = []
    for (const [key, object] of this.#objects) {
      if (!key.startsWith(`${kind.plural}/`)) continue
      if (namespace !== undefined && kind.namespaced && object.metadata.namespace !== namespace) continue
      if (selector(object)) found.push(copy(object))
    }
    return found.toSorted((a, b) => a.metadata.name < b.metadata.name ? -1 : 1)
  }

  create(kind: Kind, namespace: string, given: Draft): Thing {
    const prefix = given.metadata["generateName"]
    const name = given.metadata.name ??
      (typeof prefix === "string" ? prefix + randomUUID().replaceAll("-", "").slice(0, 5) : undefined)
    if (name === undefined) throw new Refusal(422, "Invalid", `${kind.kind} is invalid: metadata.name: Required value`)
    const key = this.#key(kind, namespace, name)
    if (this.#objects.has(key)) {
      const group = kind.group === "" ? "" : `.${kind.group}`
      throw new Refusal(409, "AlreadyExists", `${kind.plural}${group} "${name}" already exists`)
    }
    this.version += 1
    const object: Thing = {
      ...copy(given),
      metadata: {
        ...copy(given.metadata),
        name,
        ...(kind.namespaced ? { namespace } : {}),
        uid: randomUUID(),
        resourceVersion: String(this.version),
        creationTimestamp: stamp(),
        ...(kind.plural === "jobs" ? { generation: 1 } : {})
      }
    }
    this.#objects.set(key, object)
    this.#changed("ADDED", kind, object, undefined)
    return copy(object)
  }

  /** Writes a whole object; a version that is not the last is a conflict. One without finalizers that is to go, goes. */
  update(kind: Kind, given: Thing): Thing {
    const { name, namespace = "", resourceVersion, uid } = given.metadata
    const key = this.#key(kind, namespace, name)
    const before = this.#objects.get(key)
    if (before === undefined) return this.get(kind, namespace, name)
    if (uid !== undefined && uid !== before.metadata.uid) {
      throw new Refusal(
        409,
        "Conflict",
        `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${before.metadata.uid}`
      )
    }
    if (
      resourceVersion !== undefined && resourceVersion !== "" && resourceVersion !== before.metadata.resourceVersion
    ) {
      throw new Refusal(
        409,
        "Conflict",
        `Operation cannot be fulfilled on ${kind.plural} "${name}": the object has been modified; please apply your changes to the latest version and try again`
      )
    }
    const after: Thing = {
      ...copy(given),
      metadata: {
        ...copy(given.metadata),
        uid: before.metadata.uid,
        creationTimestamp: before.metadata.creationTimestamp,
        ...(before.metadata.deletionTimestamp === undefined
          ? {}
          : { deletionTimestamp: given.metadata.deletionTimestamp ?? before.metadata.deletionTimestamp })
      }
    }
    const isSame = JSON.stringify({ ...before, metadata: { ...before.metadata, resourceVersion: "" } }) ===
      JSON.stringify({ ...after, metadata: { ...after.metadata, resourceVersion: "" } })
    if (isSame) return copy(before)
    this.version += 1
    after.metadata.resourceVersion = String(this.version)
    const isGone = after.metadata.deletionTimestamp !== undefined && (after.metadata.finalizers ?? []).length === 0 &&
      (kind.plural !== "pods" || after.metadata.deletionGracePeriodSeconds === 0)
    if (isGone) this.#objects.delete(key)
    else this.#objects.set(key, after)
    this.#changed(isGone ? "DELETED" : "MODIFIED", kind, after, before)
    return copy(after)
  }

  /** Changes what is there now, whatever its version. */
  change(kind: Kind, namespace: string, name: string, how: (object: Thing) => void): Thing | undefined {
    const object = this.find(kind, namespace, name)
    if (object === undefined) return undefined
    how(object)
    return this.update(kind, object)
  }
}
