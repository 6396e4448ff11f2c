// @microsoft/msgraph-sdk. Bulk reads are not in it: the package that would have /communications was never published.
import { AllowedHostsValidator, BaseBearerTokenAuthenticationProvider } from "@microsoft/kiota-abstractions";
import { createGraphServiceClient, GraphRequestAdapter } from "@microsoft/msgraph-sdk";
import "@microsoft/msgraph-sdk-users";

import { play, token } from "./scenario.mjs";

function client(place) {
  const tokens = {
    getAuthorizationToken: () => token(place),
    getAllowedHostsValidator: () => new AllowedHostsValidator(new Set(["127.0.0.1"])),
  };
  const adapter = new GraphRequestAdapter(new BaseBearerTokenAuthenticationProvider(tokens));
  adapter.baseUrl = `${place.http}/v1.0`;
  return createGraphServiceClient(adapter).users.byUserId(place.user).presence;
}

const set = (presence, { app }, availability, activity) =>
  presence.setPresence.post({ sessionId: app, availability, activity, additionalData: { expirationDuration: "PT1H" } });

await play({
  async session(place) {
    const presence = client(place);
    await set(presence, place, "Busy", "InACall");
    const seen = await presence.get({ queryParameters: { select: ["id", "availability", "activity"] } });
    await presence.clearPresence.post({ sessionId: place.app });
    return [seen, await presence.get()];
  },

  async preferred(place) {
    const presence = client(place);
    await set(presence, place, "Available", "Available");
    await presence.setUserPreferredPresence.post({ availability: "DoNotDisturb", activity: "DoNotDisturb" });
    const preferred = await presence.get();
    await presence.clearUserPreferredPresence.post();
    const cleared = await presence.get();
    return [preferred.availability, cleared.availability];
  },

  async message(place) {
    const presence = client(place);
    const expiryDateTime = { dateTime: place.until, timeZone: "UTC" };
    const message = { content: "Zurück um drei", contentType: "text" };
    await presence.setStatusMessage.post({ statusMessage: { message, expiryDateTime } });
    const { statusMessage } = await presence.get();
    return [statusMessage.message.content, statusMessage.expiryDateTime.dateTime, statusMessage.publishedDateTime];
  },

  async error(place) {
    try {
      await client(place).clearPresence.post({ sessionId: place.app });
    } catch ({ responseStatusCode, responseHeaders, errorEscaped }) {
      const { code, message, innerError } = errorEscaped;
      const [header] = responseHeaders["request-id"];
      return { status: responseStatusCode, code, message, requestId: innerError.requestId, header, date: innerError.date };
    }
  },

  async throttled(place) {
    await set(client(place), place, "Busy", "InAConferenceCall");
  },
});
