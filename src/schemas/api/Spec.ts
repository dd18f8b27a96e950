/** What the endpoints' schemas do not say of themselves in the OpenAPI document. */
import type { Context } from "effect"
import { OpenApi } from "effect/http-api"

interface Operation {
  readonly responses: Readonly<Record<string, object>>
}

const binary = { "application/octet-stream": { schema: { type: "string", format: "binary" } } }
const text = { schema: { type: "string" } }

const bytesHeaders = { "accept-ranges": text, etag: text, "stoker-run": text, "stoker-output": text }

/** A range of bytes is another answer than all of them. */
const withRanges = <O extends Operation>(operation: O): O => ({
  ...operation,
  responses: {
    ...operation.responses,
    200: { ...operation.responses["200"], headers: bytesHeaders },
    206: {
      description: "A part of the bytes; Content-Range says which",
      headers: { ...bytesHeaders, "content-range": { ...text, required: true } },
      content: binary
    }
  }
})

const withLines = <O extends Operation>(operation: O): O => ({
  ...operation,
  responses: {
    ...operation.responses,
    200: {
      description: "Facts in order, the end last",
      content: {
        "text/event-stream": { schema: { type: "string" } },
        "application/x-ndjson": { schema: { type: "string" } }
      }
    },
    204: { description: "The end was told before: Last-Event-ID is that of the end" }
  }
})

/** Words of an endpoint, and which answers it has beside those of its schemas. */
export const told = (
  summary: string,
  description?: string,
  more: { readonly ranges?: boolean; readonly lines?: boolean } = {}
): Context.Context<never> =>
  OpenApi.annotations({
    summary,
    ...(description === undefined ? {} : { description }),
    transform: (operation) => {
      const given = operation as unknown as Operation & Record<string, unknown>
      return more.ranges === true ? withRanges(given) : more.lines === true ? withLines(given) : given
    }
  })

/** An empty list at an operation would say: nobody need say who it is. */
const withoutSecurity = (operations: Readonly<Record<string, object>>) =>
  Object.fromEntries(
    Object.entries(operations).map(([method, operation]) => [
      method,
      Object.fromEntries(Object.entries(operation).filter(([name]) => name !== "security"))
    ])
  )

/** Who may ask: a certificate of the worker's authority, or a token where the operator gave some out. */
export const withIdentity = (spec: Record<string, unknown>): Record<string, unknown> => ({
  ...spec,
  paths: Object.fromEntries(
    Object.entries(spec["paths"] as Record<string, Record<string, object>>).map((
      [path, all]
    ) => [path, withoutSecurity(all)])
  ),
  security: [{ certificate: [] }, { token: [] }],
  components: {
    ...(spec["components"] as object),
    securitySchemes: { certificate: { type: "mutualTLS" }, token: { type: "http", scheme: "bearer" } }
  }
})
