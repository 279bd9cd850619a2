# pulled.rb: the echo server of ../pulled.c in Ruby, with the library loaded at run time.
#
# Shows what a loop that is pulled is for: Ruby is never called from C. One call returns what has happened,
# and the bytes lie in one buffer. Fiddle, which comes with Ruby, is given the declarations below, copied
# from omnipoll.h; struct omni_loop_event is unpacked by its layout. Fiddle lets other Ruby threads run
# while omni_loop_wait waits; the loop is used by the thread that has made it, and any other may stop it.
#
# Run:  ruby pulled.rb [--engine select|poll|epoll|io_uring] [--address 127.0.0.1:7000] [--clients N]
# With --clients it ends after N clients have come and gone. The library is the one the loader
# finds, or the file that OMNIPOLL_LIBRARY names.

require "fiddle/import"
require "optparse"

module Omni
  extend Fiddle::Importer
  dlload ENV.fetch("OMNIPOLL_LIBRARY", "libomnipoll.so.0")
  extern "int omni_engine_by_name(const char *name)"
  extern "int omni_loop_new(const void *options, const void *handler, void *out)"
  extern "void omni_loop_free(void *loop)"
  extern "int omni_loop_listen(void *loop, const char *address, const void *handler, uint64_t token)"
  extern "int omni_loop_address(void *loop, char *buffer, size_t capacity)"
  extern "int omni_loop_buffer(void *loop, void *start, void *size)"
  extern "int omni_loop_wait(void *loop, void *events, uint32_t capacity, int64_t timeout_ns)"
  extern "int omni_loop_stop(void *loop, int64_t drain_ns)"
  extern "int omni_conn_write(uintptr_t conn, const void *data, size_t length)"
  extern "int omni_conn_close(uintptr_t conn)"
  extern "int omni_conn_abort(uintptr_t conn)"
  extern "const char *omni_last_error(void)"

  DATA = 18
  ENDED = 19
  CLOSED = 21
  STOPPING = 22
  FOREVER = -1

  # struct omni_loop_event: uint64_t token, int64_t value, uint32_t offset, length, ready, kind. The value is
  # a connection here, which is a number without a sign.
  EVENT_LAYOUT = "QQLLLL"
  EVENT_SIZE = 32

  # struct omni_loop_options: six uint32_t, of which size and engine are not 0, and eight numbers of 64 bits.
  OPTIONS_SIZE = 88

  def self.check(result)
    raise omni_last_error.to_s if result < 0

    result
  end

  def self.pointer
    out = Fiddle::Pointer.malloc(Fiddle::SIZEOF_VOIDP, Fiddle::RUBY_FREE)
    yield out
    out.ptr
  end
end

class Server
  attr_reader :address

  BATCH = 64
  TIME_TO_STOP = 10_000_000_000 # ns

  def initialize(engine, address, limit)
    @limit = limit
    @finished = 0
    engine = engine == "auto" ? 0 : Omni.check(Omni.omni_engine_by_name(engine))
    options = [Omni::OPTIONS_SIZE, engine].pack("LL").ljust(Omni::OPTIONS_SIZE, "\0")
    @loop = Omni.pointer { |out| Omni.check(Omni.omni_loop_new(options, nil, out)) }
    Omni.check(Omni.omni_loop_listen(@loop, address, nil, 0))
    @buffer = Omni.pointer { |out| Omni.check(Omni.omni_loop_buffer(@loop, out, nil)) }
    text = Fiddle::Pointer.malloc(256, Fiddle::RUBY_FREE)
    Omni.check(Omni.omni_loop_address(@loop, text, 256))
    @address = text.to_s
  end

  # Ends serve. From any thread, and from a trap.
  def stop
    Omni.omni_loop_stop(@loop, TIME_TO_STOP)
  end

  def serve
    events = Fiddle::Pointer.malloc(BATCH * Omni::EVENT_SIZE, Fiddle::RUBY_FREE)
    while @limit.zero? || @finished < @limit
      count = Omni.check(Omni.omni_loop_wait(@loop, events, BATCH, Omni::FOREVER))
      break if count.zero? # it was stopped, and all clients have gone

      fields = events[0, count * Omni::EVENT_SIZE].unpack(Omni::EVENT_LAYOUT * count)
      fields.each_slice(6) { |_token, conn, offset, length, _ready, kind| handle(kind, conn, offset, length) }
    end
    Omni.omni_loop_free(@loop)
  end

  private

  def handle(kind, conn, offset, length)
    case kind
    when Omni::DATA
      # Not a byte is left out in silence.
      Omni.omni_conn_abort(conn) if Omni.omni_conn_write(conn, @buffer + offset, length) < 0
    when Omni::ENDED, Omni::STOPPING
      Omni.omni_conn_close(conn) # once it has been sent what waits for it
    when Omni::CLOSED
      @finished += 1
    end
  end
end

options = { engine: "auto", address: "127.0.0.1:0", clients: 0 }
OptionParser.new do |parser|
  parser.on("--engine NAME")
  parser.on("--address HOST:PORT")
  parser.on("--clients N", Integer)
end.parse!(into: options)

# An error ends the program.
Thread.abort_on_exception = true
ready = Queue.new
serving = Thread.new do
  server = Server.new(options[:engine], options[:address], options[:clients])
  ready << server
  server.serve
end
server = ready.pop
%w[INT TERM].each { |name| trap(name) { server.stop } }
puts "listening on #{server.address}"
$stdout.flush
serving.join
