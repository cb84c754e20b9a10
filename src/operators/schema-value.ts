/** A JSON Schema as a literal: written `as const`, or in place. */
export type JsonSchema = Readonly<Record<string, unknown>>;

/**
 * The type of the values that follow a JSON Schema, for the words that say a shape: `type`, `const`, `enum`,
 * `properties`, `required`, `items`, `anyOf`, `oneOf`, `allOf`. What other words allow is `unknown`. Properties that
 * are not declared may be there and cannot be named, so a misspelt field is a compile error.
 */
export type SchemaValue<S> = S extends { readonly const: infer Value }
  ? Value
  : S extends { readonly enum: readonly (infer Value)[] }
    ? Value
    : Typed<S> & AnyOf<S> & OneOf<S> & AllOf<S>;

type Typed<S> = S extends { readonly type: infer Name } ? Named<Name, S> : unknown;

type AnyOf<S> = S extends { readonly anyOf: readonly (infer Choice)[] } ? ValueOfEach<Choice> : unknown;

type OneOf<S> = S extends { readonly oneOf: readonly (infer Choice)[] } ? ValueOfEach<Choice> : unknown;

type ValueOfEach<Choice> = Choice extends unknown ? SchemaValue<Choice> : never;

/** The values of all parts at once: parameters of functions intersect where their union is inferred. */
type AllOf<S> = S extends { readonly allOf: readonly (infer Part)[] }
  ? (Part extends unknown ? (value: SchemaValue<Part>) => void : never) extends (value: infer Value) => void
    ? Value
    : never
  : unknown;

/** `type` is a name or a list of names. */
type Named<Name, S> = Name extends readonly (infer One)[]
  ? Named<One, S>
  : Name extends "string"
    ? string
    : Name extends "number" | "integer"
      ? number
      : Name extends "boolean"
        ? boolean
        : Name extends "null"
          ? null
          : Name extends "array"
            ? readonly Items<S>[]
            : Name extends "object"
              ? ObjectValue<S>
              : unknown;

type Items<S> = S extends { readonly items: infer Item } ? SchemaValue<Item> : unknown;

type ObjectValue<S> = S extends { readonly properties: infer Properties }
  ? {
      readonly [Name in keyof Properties as Name extends RequiredOf<S> ? Name : never]: SchemaValue<
        Properties[Name]
      >;
    } & {
      readonly [Name in keyof Properties as Name extends RequiredOf<S> ? never : Name]?: SchemaValue<
        Properties[Name]
      >;
    }
  : S extends { readonly anyOf: unknown } | { readonly oneOf: unknown } | { readonly allOf: unknown }
    ? unknown
    : Readonly<Record<string, unknown>>;

type RequiredOf<S> = S extends { readonly required: readonly (infer Name)[] } ? Name : never;
