/** Things that are found by their names must have different ones: which of two is meant nobody could say. */
import { Effect, Schema } from "effect"

/** Two things of one kind have the same name: the worker does not start with them. */
export class DuplicateName extends Schema.TaggedError<DuplicateName>()("DuplicateName", {
  kind: Schema.Literals(["driver", "emitter", "function", "intake", "sandbox class"]),
  name: Schema.String,
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `${this.kind} ${this.name}: ${this.reason}. ${this.remedy}`
  }
}

/** The same things, once it is sure that no two have one name. */
export const distinct = <A extends { readonly name: string }>(
  kind: DuplicateName["kind"],
  things: ReadonlyArray<A>
): Effect.Effect<ReadonlyArray<A>, DuplicateName> => {
  const names = things.map(({ name }) => name)
  const twice = names.find((name, index) => names.indexOf(name) < index)
  return twice === undefined
    ? Effect.succeed(things)
    : Effect.fail(
      new DuplicateName({
        kind,
        name: twice,
        reason: "there are two of that name",
        remedy: "Give one of them another name, or leave it out."
      })
    )
}
