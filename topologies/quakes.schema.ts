/**
 * An earthquake as the USGS feed reports it. A magnitude may be 0 or negative, a depth (km, the third
 * coordinate) negative for a quake above sea level, and a place is text in any language.
 */
export const quake = {
  type: "object",
  required: ["id", "updated", "time", "mag", "place", "coordinates"],
  properties: {
    id: { type: "string", minLength: 1 },
    /** Milliseconds since 1970; a new one for each correction. */
    updated: { type: "integer" },
    time: { type: "integer" },
    mag: { type: ["number", "null"] },
    place: { type: ["string", "null"] },
    coordinates: {
      type: "array",
      minItems: 3,
      maxItems: 3,
      items: { type: ["number", "null"] },
    },
    poll: { type: "integer" },
    pos: { type: "integer" },
  },
} as const;
