// The theme searches in a Worker, which browsers refuse to pages that were opened from disk. There a hidden frame stands in:
// it loads the same script, and messages go to and fro as with a Worker.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = inside.document.createElement("script");
      script.src = new URL(url, location.href);
      const loaded = new Promise((done) => script.addEventListener("load", done));
      inside.document.body.append(script);
      this.send = (data) => loaded.then(() => inside.dispatchEvent(new inside.MessageEvent("message", { data })));
    }

    postMessage(data) {
      this.send(data);
    }
  };
}
