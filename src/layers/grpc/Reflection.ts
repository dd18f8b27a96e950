/** `grpc.reflection`, v1 and v1alpha: tools like grpcurl ask a server which services it has and what their messages are. */
import {
  create,
  createFileRegistry,
  type DescFile,
  type FileRegistry,
  type MessageInitShape,
  type MessageShape,
  toBinary
} from "@bufbuild/protobuf"
import { type FileDescriptorProto, FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt"
import { Effect } from "effect"
import {
  ServerReflection,
  type ServerReflectionRequestSchema,
  type ServerReflectionResponseSchema
} from "./gen/grpc/reflection/v1/reflection_pb.js"
import { ServerReflection as ServerReflectionAlpha } from "./gen/grpc/reflection/v1alpha/reflection_pb.js"
import { offer, type Offered } from "./Service.ts"

type Request = MessageShape<typeof ServerReflectionRequestSchema>["messageRequest"]
type Response = NonNullable<MessageInitShape<typeof ServerReflectionResponseSchema>["messageResponse"]>

const NOT_FOUND = 5

const notFound = (what: string): Response => ({
  case: "errorResponse",
  value: { errorCode: NOT_FOUND, errorMessage: `${what} is not found` }
})

/** A file and all that it imports, each once and behind what it imports. */
const withImports = (file: DescFile, found = new Map<string, FileDescriptorProto>()) => {
  if (found.has(file.proto.name)) return found
  for (const each of file.dependencies) withImports(each, found)
  return found.set(file.proto.name, file.proto)
}

/** The file that has a symbol: also a method of a service, a field or value of a type. */
const fileOf = (registry: FileRegistry, symbol: string): DescFile | undefined => {
  const found = registry.get(symbol)
  if (found !== undefined) return found.file
  const dot = symbol.lastIndexOf(".")
  const parent = dot === -1 ? undefined : registry.get(symbol.slice(0, dot))
  const name = symbol.slice(dot + 1)
  switch (parent?.kind) {
    case "service":
      return parent.methods.some((method) => method.name === name) ? parent.file : undefined
    case "message":
      return parent.fields.some((field) => field.name === name) ? parent.file : undefined
    default:
      return undefined
  }
}

/** Of these services, and of itself. */
export const reflection = (offered: ReadonlyArray<Offered>): ReadonlyArray<Offered> => {
  const services = [...offered.map(({ service }) => service), ServerReflection, ServerReflectionAlpha]
  const files = new Map<string, FileDescriptorProto>()
  for (const { file } of services) withImports(file, files)
  const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: [...files.values()] }))

  const described = (file: DescFile): Response => ({
    case: "fileDescriptorResponse",
    value: {
      // The one that was asked for comes first.
      fileDescriptorProto: [...withImports(file).values()].toReversed().map((each) =>
        toBinary(FileDescriptorProtoSchema, each)
      )
    }
  })
  const answer = (request: Request): Response => {
    switch (request.case) {
      case "listServices": {
        const service = services.map(({ typeName }) => ({ name: typeName }))
        return { case: "listServicesResponse", value: { service } }
      }
      case "fileByFilename": {
        const file = registry.getFile(request.value)
        return file === undefined ? notFound("the file") : described(file)
      }
      case "fileContainingSymbol": {
        const file = fileOf(registry, request.value)
        return file === undefined ? notFound("the symbol") : described(file)
      }
      case "allExtensionNumbersOfType":
        return registry.getMessage(request.value) === undefined
          ? notFound("the type")
          : { case: "allExtensionNumbersResponse", value: { baseTypeName: request.value, extensionNumber: [] } }
      case "fileContainingExtension":
        return notFound("the extension")
      case undefined:
        return { case: "errorResponse", value: { errorCode: 3, errorMessage: "nothing is asked" } }
    }
  }
  const info = (request: MessageShape<typeof ServerReflectionRequestSchema>) =>
    Effect.sync(() => ({
      validHost: request.host,
      originalRequest: request,
      messageResponse: answer(request.messageRequest)
    }))
  return [
    offer(ServerReflection, { serverReflectionInfo: info }),
    // The same messages under other names: the answer takes them from its own description.
    offer(ServerReflectionAlpha, { serverReflectionInfo: info as never })
  ]
}
