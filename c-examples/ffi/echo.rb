# echo.rb: the echo server of ../echo.c in Ruby, with the library loaded at run time.
#
# Shows that the facts of omnipoll.h are all it takes: Fiddle, which comes with Ruby, is given
# the declarations below, copied from it; its constants are written as numbers, and
# struct omni_event is unpacked by its layout. The sockets are Ruby's own: omnipoll only sees
# their descriptors. Fiddle lets other Ruby threads run while omni_poller_wait waits, so the main
# thread is free to handle SIGINT and SIGTERM, with omni_poller_wake.
#
# Run:  ruby echo.rb [--engine select|poll|epoll|io_uring] [--address 127.0.0.1:7000] [--clients N]
# With --clients it ends after N clients have come and gone. The library is the one the loader
# finds, or the file that OMNIPOLL_LIBRARY names.

require "fiddle/import"
require "optparse"
require "socket"

module Omni
  extend Fiddle::Importer
  dlload ENV.fetch("OMNIPOLL_LIBRARY", "libomnipoll.so.0")
  extern "int omni_poller_new(uint32_t engine, uint32_t flags, void *out)"
  extern "void omni_poller_free(void *poller)"
  extern "int omni_poller_add(void *poller, int fd, uint32_t interest, uint64_t token)"
  extern "int omni_poller_modify(void *poller, int fd, uint32_t interest, uint64_t token)"
  extern "int omni_poller_remove(void *poller, int fd)"
  extern "int omni_poller_wait(void *poller, void *events, uint32_t capacity, int64_t timeout_ns)"
  extern "int omni_poller_wake(void *poller)"
  extern "const char *omni_last_error(void)"

  ENGINES = { "auto" => 0, "select" => 1, "poll" => 2, "epoll" => 3, "io_uring" => 4 }.freeze
  READ = 1
  WRITE = 2
  EVENT_WAKE = 5
  FOREVER = -1

  # struct omni_event: uint64_t token, int64_t value, uint32_t ready, uint32_t kind
  EVENT_LAYOUT = "QqLL"
  EVENT_SIZE = 24

  def self.check(result)
    raise omni_last_error.to_s if result < 0

    result
  end
end

# A connection and what is read from it and not yet written back.
class Client
  QUEUE_SIZE = 65_536

  attr_reader :socket
  attr_accessor :interest

  def initialize(socket)
    @socket = socket
    @interest = Omni::READ
    @queue = String.new(capacity: QUEUE_SIZE)
    @ended = false
  end

  # Reads what there is room for.
  def fill
    case data = @socket.read_nonblock(QUEUE_SIZE - @queue.bytesize, exception: false)
    when :wait_readable then nil
    when nil then @ended = true
    else @queue << data
    end
  end

  # Writes what the socket takes.
  def drain
    until @queue.empty?
      count = @socket.write_nonblock(@queue, exception: false)
      return if count == :wait_writable

      @queue = @queue.byteslice(count..)
    end
  end

  def done?
    @ended && @queue.empty?
  end

  # A full queue is emptied before more is read.
  def wanted
    reading = @queue.bytesize < QUEUE_SIZE && !@ended
    (reading ? Omni::READ : 0) | (@queue.empty? ? 0 : Omni::WRITE)
  end
end

class Server
  BATCH = 64

  def initialize(engine, address, limit)
    @limit = limit
    @finished = 0
    @clients = {}
    out = Fiddle::Pointer.malloc(Fiddle::SIZEOF_VOIDP, Fiddle::RUBY_FREE)
    Omni.check(Omni.omni_poller_new(engine, 0, out))
    @poller = out.ptr
    host, port = address.split(":")
    @listener = TCPServer.new(host, port.to_i)
    @listener.listen(Socket::SOMAXCONN)
    watch(@listener)
  end

  def port
    @listener.local_address.ip_port
  end

  # Ends serve. From any thread, and from a trap.
  def stop
    Omni.omni_poller_wake(@poller)
  end

  def serve
    events = Fiddle::Pointer.malloc(BATCH * Omni::EVENT_SIZE, Fiddle::RUBY_FREE)
    while @limit.zero? || @finished < @limit
      count = Omni.check(Omni.omni_poller_wait(@poller, events, BATCH, Omni::FOREVER))
      fields = events[0, count * Omni::EVENT_SIZE].unpack(Omni::EVENT_LAYOUT * count)
      fields.each_slice(4) do |token, _value, ready, kind|
        return if kind == Omni::EVENT_WAKE

        token == @listener.fileno ? accept_client : serve_client(@clients.fetch(token), ready)
      end
    end
  end

  def close
    @clients.each_value { |client| close_client(client) }
    Omni.omni_poller_free(@poller)
    @listener.close
  end

  private

  # The token of each registration is its descriptor.
  def watch(socket)
    Omni.check(Omni.omni_poller_add(@poller, socket.fileno, Omni::READ, socket.fileno))
  end

  def accept_client
    socket = @listener.accept_nonblock(exception: false)
    return if socket == :wait_readable

    watch(socket)
    @clients[socket.fileno] = Client.new(socket)
  rescue Errno::ECONNABORTED
    # That connection's own trouble.
  end

  def serve_client(client, ready)
    client.fill if ready & Omni::READ != 0
    client.drain
    return forget(client) if client.done?

    wanted = client.wanted
    return if wanted == client.interest

    fd = client.socket.fileno
    Omni.check(Omni.omni_poller_modify(@poller, fd, wanted, fd))
    client.interest = wanted
  rescue SystemCallError
    forget(client) # the connection is broken
  end

  def forget(client)
    @clients.delete(client.socket.fileno)
    close_client(client)
    @finished += 1
  end

  def close_client(client)
    Omni.check(Omni.omni_poller_remove(@poller, client.socket.fileno)) # always before close
    client.socket.close
  end
end

options = { engine: "auto", address: "127.0.0.1:0", clients: 0 }
OptionParser.new do |parser|
  parser.on("--engine NAME", Omni::ENGINES.keys)
  parser.on("--address HOST:PORT")
  parser.on("--clients N", Integer)
end.parse!(into: options)

server = Server.new(Omni::ENGINES.fetch(options[:engine]), options[:address], options[:clients])
serving = Thread.new { server.serve }
%w[INT TERM].each { |name| trap(name) { server.stop } }
puts "listening on #{options[:address].split(":").first}:#{server.port}"
$stdout.flush
serving.join
server.close
