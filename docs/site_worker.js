// Search in a page that was opened from a folder: there browsers start no workers. This one runs the
// worker's script in a hidden frame and passes messages on.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(script) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inside = frame.contentWindow
      this.waiting = []
      const pass = data => {
        const message = new MessageEvent("message", { data })
        this.dispatchEvent(message)
        if (this.onmessage) this.onmessage(message)
      }
      this.inside.postMessage = data => setTimeout(() => pass(data))
      this.inside.importScripts = () => { throw new Error("No scripts can be imported here.") }
      const program = frame.contentDocument.createElement("script")
      program.src = new URL(script, location.href)
      program.onload = () => {
        this.ready = true
        this.waiting.splice(0).forEach(data => this.postMessage(data))
      }
      frame.contentDocument.body.append(program)
    }
    postMessage(data) {
      if (!this.ready) return this.waiting.push(data)
      this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data }))
    }
    terminate() {}
  }
}
