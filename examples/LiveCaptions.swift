// Live captions in a Swift program, which has `voxmlx live` as its worker.
//
//     swift examples/LiveCaptions.swift --demo
//
// Arguments are passed on to the worker. Type pause, resume, flush, delay 960 or stop.
// docs/worker.md describes all lines and commands.

import Foundation

/// One line of the worker. Which fields are there depends on the type.
struct Line: Decodable {
    let type: String
    let schema: Int?
    let model: String?
    let source: String?
    let text: String?
    let message: String?
    let delayMs: Int?
    let timeMs: Int?
}

/// The process that listens: lines come from it, commands go to it.
final class Worker {
    var onLine: (Line) -> Void = { _ in }

    private let process = Process()
    private let commands = Pipe()
    private let lines = Pipe()
    private let ended = DispatchSemaphore(value: 0)
    private let decoder = JSONDecoder()
    private var pending = Data()

    init(arguments: [String]) {
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["voxmlx", "live", "--format", "jsonl"] + arguments
        process.standardInput = commands
        process.standardOutput = lines
    }

    /// If this program ends in any way, the worker's standard input ends with it, and
    /// the worker closes the microphone.
    func start() throws {
        lines.fileHandleForReading.readabilityHandler = { [weak self] handle in
            let data = handle.availableData
            if data.isEmpty {
                handle.readabilityHandler = nil
                self?.ended.signal()
            } else {
                self?.receive(data)
            }
        }
        try process.run()
    }

    func send(_ command: String) {
        try? commands.fileHandleForWriting.write(contentsOf: Data("\(command)\n".utf8))
    }

    /// Lets the worker say its last words, and waits for them.
    func stop() {
        try? commands.fileHandleForWriting.close()
        ended.wait()
        process.waitUntilExit()
    }

    private func receive(_ data: Data) {
        pending.append(data)
        while let end = pending.firstIndex(of: UInt8(ascii: "\n")) {
            let line = Data(pending[..<end])
            pending = Data(pending[pending.index(after: end)...])
            do {
                onLine(try decoder.decode(Line.self, from: line))
            } catch {
                say("a line is not understood: \(error)", to: .standardError)
            }
        }
    }
}

func say(_ text: String, to handle: FileHandle = .standardOutput) {
    handle.write(Data("\(text)\n".utf8))
}

// A worker that has ended must not end this program when it gets a command.
signal(SIGPIPE, SIG_IGN)

let worker = Worker(arguments: Array(CommandLine.arguments.dropFirst()))
var utterance: [String] = []
worker.onLine = { line in
    switch line.type {
    case "stream":
        guard line.schema == 1 else {
            say("schema \(line.schema ?? 0) is not known here", to: .standardError)
            exit(1)
        }
        say("[\(line.source ?? "") · \(line.model ?? "")]")
    case "word":
        utterance.append(line.text ?? "")
    case "utterance_end", "finished":
        if !utterance.isEmpty { say(utterance.joined(separator: " ")) }
        utterance = []
    case "paused", "resumed":
        say("[\(line.type)]")
    case "delay":
        say("[delay \(line.delayMs ?? 0) ms]")
    case "notice", "error":
        say("[\(line.message ?? "")]", to: .standardError)
    default:
        break
    }
}
try worker.start()
while let typed = readLine(), typed != "stop" {
    worker.send(typed)
}
worker.stop()
