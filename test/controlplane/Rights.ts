/** What the worker's account asked a real API server for, by the server's own audit log. */
import { existsSync, readFileSync } from "node:fs"

/** One right, as RBAC has it: `create batch/jobs`. */
export type Named = string

export const named = (verb: string, group: string, resource: string): Named =>
  `${verb} ${group === "" ? "" : `${group}/`}${resource}`

interface Event {
  readonly verb: string
  readonly user: { readonly username: string }
  readonly userAgent?: string
  readonly objectRef?: {
    readonly apiGroup?: string
    readonly resource: string
    readonly subresource?: string
    readonly namespace?: string
  }
  readonly responseStatus?: { readonly code?: number }
  readonly annotations?: Readonly<Record<string, string>>
}

export interface Used {
  /** What was allowed, in which namespaces. */
  readonly rights: ReadonlySet<Named>
  readonly namespaces: ReadonlySet<string>
  /** What was not. */
  readonly refused: ReadonlySet<Named>
  readonly requests: number
}

/** Every account may ask what it may; that is no right of ours. */
const isCommon = ({ objectRef }: Event) => objectRef === undefined || objectRef.apiGroup === "authorization.k8s.io"

export const usedBy = (auditLog: string, account: string): Used => {
  const [rights, namespaces, refused] = [new Set<Named>(), new Set<string>(), new Set<Named>()]
  let requests = 0
  const lines = existsSync(auditLog) ? readFileSync(auditLog, "utf8").split("\n") : []
  for (const line of lines) {
    if (line === "") continue
    const event = JSON.parse(line) as Event
    // What tests ask with its token to be refused has no such name.
    if (event.user.username !== account || event.userAgent !== "stoker" || isCommon(event)) continue
    requests++
    const { apiGroup = "", namespace = "", resource = "", subresource } = event.objectRef ?? {}
    const right = named(event.verb, apiGroup, subresource === undefined ? resource : `${resource}/${subresource}`)
    if (event.annotations?.["authorization.k8s.io/decision"] === "forbid") refused.add(right)
    else {
      rights.add(right)
      namespaces.add(namespace)
    }
  }
  return { rights, namespaces, refused, requests }
}

interface Rule {
  readonly apiGroups: ReadonlyArray<string>
  readonly resources: ReadonlyArray<string>
  readonly verbs: ReadonlyArray<string>
}

/** What the rules of a Role allow. */
export const givenBy = (rules: ReadonlyArray<Rule>): ReadonlySet<Named> =>
  new Set(
    rules.flatMap(({ apiGroups, resources, verbs }) =>
      apiGroups.flatMap((group) => resources.flatMap((resource) => verbs.map((verb) => named(verb, group, resource))))
    )
  )
