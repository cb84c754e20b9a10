import { readFileSync } from "node:fs";

/** FHIR R4's own definitions of three resources and all they are made of; of contained ones only the type is checked. */
const definitions = JSON.parse(
  readFileSync(new URL("fhir-r4.definitions.json", import.meta.url), "utf8"),
) as Readonly<Record<string, object>>;

const resources = ["Encounter", "Patient", "QuestionnaireResponse"];

/** A notification: a Bundle whose first entry says what happened, and whose others are the resources it is about. */
export const notification: object = {
  $schema: "http://json-schema.org/draft-07/schema#",
  definitions,
  type: "object",
  required: ["resourceType", "type", "timestamp", "entry"],
  properties: {
    resourceType: { const: "Bundle" },
    type: { const: "history" },
    timestamp: { type: "string", format: "date-time" },
    entry: {
      type: "array",
      minItems: 1,
      items: [
        {
          type: "object",
          required: ["resource"],
          properties: {
            resource: {
              type: "object",
              required: ["resourceType", "status", "type", "topic", "notificationEvent"],
              properties: {
                resourceType: { const: "AidboxSubscriptionStatus" },
                status: { type: "string" },
                type: { const: "event-notification" },
                topic: { type: "string", minLength: 1 },
                notificationEvent: {
                  type: "array",
                  minItems: 1,
                  items: {
                    type: "object",
                    required: ["eventNumber", "focus"],
                    properties: {
                      eventNumber: { type: "integer", minimum: 1 },
                      focus: {
                        type: "object",
                        required: ["reference"],
                        properties: { reference: { type: "string", minLength: 1 } },
                      },
                    },
                  },
                },
              },
            },
          },
        },
      ],
      additionalItems: {
        type: "object",
        required: ["fullUrl", "request", "resource"],
        properties: {
          fullUrl: { type: "string", minLength: 1 },
          request: {
            type: "object",
            required: ["method", "url"],
            properties: { method: { enum: ["POST", "PUT", "PATCH", "DELETE"] }, url: { type: "string" } },
          },
          resource: {
            type: "object",
            required: ["resourceType", "id"],
            properties: { resourceType: { enum: resources }, id: { type: "string" } },
            // By type, so that an error names the place in the resource and not all types that it might be of.
            allOf: resources.map((type) => ({
              if: { type: "object", properties: { resourceType: { const: type } } },
              // biome-ignore lint/suspicious/noThenProperty: the word is JSON Schema's
              then: { $ref: `#/definitions/${type}` },
            })),
          },
        },
      },
    },
  },
};
