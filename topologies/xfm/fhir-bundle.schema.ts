/**
 * A FHIR R4 bundle, as far as the translation looks at it. The pattern is FHIR's own for base64; V8 takes it
 * exponential time on some texts of 100 characters, and `validate` none to speak of.
 */
const base64 = { type: "string", pattern: "^(\\s*([0-9a-zA-Z\\+/=]){4}\\s*)+$" } as const;
const text = { type: "string" } as const;
const coding = {
  type: "object",
  properties: { system: text, code: text, display: text },
} as const;
const concept = {
  type: "object",
  properties: { coding: { type: "array", items: coding }, text },
} as const;
const quantity = {
  type: "object",
  properties: { value: { type: "number" }, unit: text, code: text },
} as const;
const period = { type: "object", properties: { start: text, end: text } } as const;

const measured = {
  code: concept,
  valueQuantity: quantity,
  valueCodeableConcept: concept,
  valueString: text,
} as const;

const resource = {
  type: "object",
  required: ["resourceType"],
  properties: {
    resourceType: { type: "string", pattern: "^[A-Z][A-Za-z]*$" },
    id: { type: "string", pattern: "^[A-Za-z0-9\\-.]{1,64}$" },
    extension: {
      type: "array",
      items: { type: "object", required: ["url"], properties: { url: text, valueBase64Binary: base64 } },
    },
    ...measured,
    category: { type: "array", items: concept },
    component: { type: "array", items: { type: "object", properties: measured } },
    vaccineCode: concept,
    medicationCodeableConcept: concept,
    type: { anyOf: [concept, { type: "array", items: concept }] },
    effectiveDateTime: text,
    onsetDateTime: text,
    occurrenceDateTime: text,
    authoredOn: text,
    performedDateTime: text,
    performedPeriod: period,
    period,
    presentedForm: { type: "array", items: { type: "object", properties: { data: base64 } } },
    name: {
      anyOf: [
        text,
        {
          type: "array",
          items: { type: "object", properties: { family: text, given: { type: "array", items: text } } },
        },
      ],
    },
    gender: { enum: ["male", "female", "other", "unknown"] },
    birthDate: { type: "string", pattern: "^[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?$" },
  },
} as const;

export const fhirBundle = {
  type: "object",
  required: ["resourceType", "entry"],
  properties: {
    resourceType: { const: "Bundle" },
    id: { type: "string", pattern: "^[A-Za-z0-9\\-.]{1,64}$" },
    entry: {
      type: "array",
      minItems: 1,
      maxItems: 20_000,
      items: { type: "object", properties: { resource } },
    },
  },
} as const;
