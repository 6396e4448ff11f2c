// @microsoft/microsoft-graph-client. Over http it would drop its token without a word.
import { BatchRequestContent, BatchResponseContent, Client } from "@microsoft/microsoft-graph-client";

import { play, token } from "./scenario.mjs";

function client(place) {
  return Client.init({
    authProvider: (done) => token(place).then((found) => done(null, found), done),
    baseUrl: `${place.https}/`,
    customHosts: new Set(["127.0.0.1"]),
  });
}

const presence = (user) => `/users/${user}/presence`;

const set = (graph, { app, user }, availability, activity) =>
  graph.api(`${presence(user)}/setPresence`).post({ sessionId: app, availability, activity, expirationDuration: "PT1H" });

const clear = (graph, { app, user }) => graph.api(`${presence(user)}/clearPresence`).post({ sessionId: app });

await play({
  async session(place) {
    const graph = client(place);
    await set(graph, place, "Busy", "InACall");
    const seen = await graph.api(presence(place.user)).select("id,availability,activity").get();
    await clear(graph, place);
    return [seen, await graph.api(presence(place.user)).get()];
  },

  async many(place) {
    const graph = client(place);
    await set(graph, place, "Away", "Away");
    const { value } = await graph.api("/communications/getPresencesByUserId").post({ ids: [place.user, place.app] });
    return value.map(({ id, activity }) => [id, activity]);
  },

  async preferred(place) {
    const graph = client(place);
    const path = presence(place.user);
    await set(graph, place, "Available", "Available");
    await graph
      .api(`${path}/setUserPreferredPresence`)
      .post({ availability: "DoNotDisturb", activity: "DoNotDisturb", expirationDuration: "PT8H" });
    const preferred = await graph.api(path).get();
    await graph.api(`${path}/clearUserPreferredPresence`).post(undefined);
    const cleared = await graph.api(path).get();
    return [preferred.availability, cleared.availability];
  },

  async message(place) {
    const graph = client(place);
    const path = presence(place.user);
    const expiryDateTime = { dateTime: place.until, timeZone: "UTC" };
    const message = { content: "Zurück um drei", contentType: "text" };
    await graph.api(`${path}/setStatusMessage`).post({ statusMessage: { message, expiryDateTime } });
    const { statusMessage } = await graph.api(path).get();
    return [statusMessage.message.content, statusMessage.expiryDateTime.dateTime, statusMessage.publishedDateTime];
  },

  async error(place) {
    try {
      await clear(client(place), place);
    } catch ({ statusCode, code, message, requestId, headers, date }) {
      return { status: statusCode, code, message, requestId, header: headers.get("request-id"), date };
    }
  },

  async throttled(place) {
    await set(client(place), place, "Busy", "InAConferenceCall");
  },

  async batch(place) {
    const graph = client(place);
    await set(graph, place, "Busy", "InACall");
    const steps = [place.user, "nobody"].map((user, number) => ({
      id: `${number}`,
      request: new Request(`http://batch${presence(user)}`), // the client takes the host off, and only that
    }));
    const content = await new BatchRequestContent(steps).getContent();
    const answers = new BatchResponseContent(await graph.api("/$batch").post(content));
    const seen = await answers.getResponseById("0").json();
    return [seen.activity, answers.getResponseById("1").status];
  },
});
