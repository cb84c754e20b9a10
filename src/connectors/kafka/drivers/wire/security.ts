import { isIP } from "node:net";
import {
  type Connection,
  type SASLOptions,
  saslOAuthBearer,
  saslPlain,
  saslScramSha,
} from "@platformatic/kafka";
import { reveal } from "../../../../component/secret.ts";
import { DriverError } from "../../driver.ts";
import { currentToken, type KafkaSasl, type KafkaSettings } from "../../options.ts";

type SaslAuthenticate = Parameters<typeof saslPlain.authenticate>[0];
type LoginAnswer = Awaited<ReturnType<typeof saslPlain.authenticate>>;

/**
 * TLS and login of a connection to `host`, as the library wants them.
 *
 * @param onLogin told how long the login lasts, ms; 0: for ever. The library would renew it while other requests
 * are under way, which the broker then refuses; so it is not told, and the connection must be replaced in time.
 */
export function security({ tls, sasl }: KafkaSettings, host: string, onLogin: (lifetime: number) => void) {
  const { insecureSkipVerify, servername, ...pem } = tls ?? {};
  const name = servername ?? (isIP(host) === 0 ? host : undefined);
  return {
    ...(tls === undefined
      ? {}
      : {
          tls: {
            ...pem,
            ...(name === undefined ? {} : { servername: name }),
            minVersion: "TLSv1.2" as const,
            rejectUnauthorized: insecureSkipVerify !== true,
          },
        }),
    ...(sasl === undefined ? {} : { sasl: login(sasl, onLogin) }),
  };
}

function login(sasl: KafkaSasl, onLogin: (lifetime: number) => void): SASLOptions {
  return {
    mechanism: sasl.mechanism.toUpperCase() as SASLOptions["mechanism"],
    authenticate(_mechanism, connection, api, _username, _password, _token, done) {
      authenticate(sasl, connection, api).then(
        (response) => {
          onLogin(Number(response.sessionLifetimeMs));
          done(null, { ...response, sessionLifetimeMs: 0n });
        },
        (error) => done(error as Error),
      );
    },
  };
}

async function authenticate(
  sasl: KafkaSasl,
  connection: Connection,
  api: SaslAuthenticate,
): Promise<LoginAnswer> {
  if (sasl.mechanism === "oauthbearer") {
    const response = await saslOAuthBearer.authenticate(api, connection, await currentToken(sasl), {});
    // A token that is refused gets an answer without an error code, whose content says so (RFC 7628, 3.2.2).
    const refusal = response.authBytes.toString();
    if (refusal !== "") throw new DriverError("access", `the broker refuses the token: ${refusal}`);
    return response;
  }
  const { username } = sasl;
  const password = reveal(sasl.password);
  if (sasl.mechanism === "plain") return saslPlain.authenticate(api, connection, username, password);
  const algorithm = sasl.mechanism === "scram-sha-256" ? "SHA-256" : "SHA-512";
  return saslScramSha.authenticate(api, connection, algorithm, username, password);
}
